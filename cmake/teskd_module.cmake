# teskd_module(NAME PREFIX p [HEADERS h...] [PRIVATE_HEADERS h...] [SOURCES s...] [LINK l...] [PRIVATE_LINK l...])
#
# One static library per folder. Its HEADERS are reachable as "PREFIX/name.h", and only by the targets that link it: the
# include folder is a folder of links in the build tree, so that a forbidden include does not compile. PRIVATE_HEADERS
# are reachable the same way by the module alone.

add_library(teskd_flags INTERFACE)
target_compile_definitions(teskd_flags INTERFACE _GNU_SOURCE TESKD_VERSION="${PROJECT_VERSION}")
target_compile_options(teskd_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
  -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wformat=2 -fno-math-errno -fno-common)
# A fault in reading a foreign file must not become a way in. Fortify needs optimisation, and would hide what sanitizers see.
target_compile_options(teskd_flags INTERFACE -fstack-protector-strong)
if(NOT TESKD_SANITIZE)
  target_compile_options(teskd_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>)
endif()
target_link_options(teskd_flags INTERFACE -Wl,-z,relro,-z,now -Wl,--build-id=sha1) # ranks compare the build id
if(TESKD_WERROR)
  target_compile_options(teskd_flags INTERFACE -Werror)
endif()
if(TESKD_SANITIZE)
  target_compile_options(teskd_flags INTERFACE -fsanitize=${TESKD_SANITIZE} -fno-omit-frame-pointer -g -fno-sanitize-recover=all)
  target_link_options(teskd_flags INTERFACE -fsanitize=${TESKD_SANITIZE})
endif()
if(TESKD_FUZZ)
  target_compile_options(teskd_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Makes links to headers under build/include/FOLDER/PREFIX/.
function(teskd_link_headers folder prefix)
  set(root ${PROJECT_BINARY_DIR}/include/${folder})
  file(MAKE_DIRECTORY ${root}/${prefix})
  foreach(header ${ARGN})
    get_filename_component(name ${header} NAME)
    file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/${header} ${root}/${prefix}/${name} SYMBOLIC)
  endforeach()
endfunction()

function(teskd_module target)
  cmake_parse_arguments(M "" "PREFIX" "HEADERS;PRIVATE_HEADERS;SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  if(M_SOURCES)
    add_library(${target} STATIC ${M_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE teskd_flags ${M_PRIVATE_LINK})
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  teskd_link_headers(${target} ${M_PREFIX} ${M_HEADERS})
  target_include_directories(${target} ${scope} ${PROJECT_BINARY_DIR}/include/${target})
  if(M_PRIVATE_HEADERS)
    teskd_link_headers(${target}_private ${M_PREFIX} ${M_PRIVATE_HEADERS})
    target_include_directories(${target} PRIVATE ${PROJECT_BINARY_DIR}/include/${target}_private)
  endif()
  target_link_libraries(${target} ${scope} ${M_LINK})
endfunction()
