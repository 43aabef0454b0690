# The libraries of the program, each as one imported target. A missing one names the Debian package.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

find_package(MPI REQUIRED COMPONENTS C)           # libopenmpi-dev
find_package(HDF5 REQUIRED COMPONENTS C)          # libhdf5-dev
pkg_check_modules(inih REQUIRED IMPORTED_TARGET inih)   # libinih-dev
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)   # libxxhash-dev
pkg_check_modules(hwloc REQUIRED IMPORTED_TARGET hwloc)   # libhwloc-dev
pkg_check_modules(jpeg REQUIRED IMPORTED_TARGET libjpeg)   # libjpeg-dev: libjpeg-turbo, for cropping while decoding
pkg_check_modules(png REQUIRED IMPORTED_TARGET libpng)   # libpng-dev
pkg_check_modules(zlib REQUIRED IMPORTED_TARGET zlib)   # zlib1g-dev, which libpng-dev brings
pkg_check_modules(archive REQUIRED IMPORTED_TARGET libarchive)   # libarchive-dev
find_package(dnnl REQUIRED)                       # libdnnl-dev
# test_backend_cpu passed on AVX2 with 2.6.3, 3.0.0, 3.1.0, 3.2.0, 3.7.2 and 3.13.2.
if(dnnl_VERSION VERSION_LESS 2.6 OR dnnl_VERSION VERSION_GREATER_EQUAL 3.14)
  message(WARNING "oneDNN ${dnnl_VERSION}: teskd was tried with 2.6 to 3.13; run the test test_backend_cpu")
endif()
pkg_check_modules(json-c REQUIRED IMPORTED_TARGET json-c)   # libjson-c-dev
pkg_check_modules(protobuf-c REQUIRED IMPORTED_TARGET libprotobuf-c)   # libprotobuf-c-dev
find_program(TESKD_PROTOC_C protoc-c REQUIRED)    # protobuf-c-compiler
find_path(TESKD_ONNX_PROTO onnx/onnx.proto REQUIRED)   # libonnx-dev

# The structures of ONNX files, made from the official schema.
set(onnx_schema ${PROJECT_BINARY_DIR}/onnx_schema)
file(MAKE_DIRECTORY ${onnx_schema})
add_custom_command(OUTPUT ${onnx_schema}/onnx/onnx.pb-c.c ${onnx_schema}/onnx/onnx.pb-c.h
  COMMAND ${TESKD_PROTOC_C} --c_out=${onnx_schema} -I ${TESKD_ONNX_PROTO} ${TESKD_ONNX_PROTO}/onnx/onnx.proto
  DEPENDS ${TESKD_ONNX_PROTO}/onnx/onnx.proto VERBATIM)
add_library(teskd_onnx_schema STATIC ${onnx_schema}/onnx/onnx.pb-c.c ${onnx_schema}/onnx/onnx.pb-c.h)
target_include_directories(teskd_onnx_schema SYSTEM PUBLIC ${onnx_schema})
target_link_libraries(teskd_onnx_schema PUBLIC PkgConfig::protobuf-c)

add_library(teskd_hdf5 INTERFACE)
target_include_directories(teskd_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(teskd_hdf5 INTERFACE ${HDF5_C_LIBRARIES})

if(TESKD_CUDA STREQUAL "AUTO")
  find_package(CUDAToolkit 12 QUIET)
elseif(TESKD_CUDA)
  find_package(CUDAToolkit 12 REQUIRED)
endif()
if(CUDAToolkit_FOUND)
  message(STATUS "CUDA toolkit ${CUDAToolkit_VERSION}: GPU support is built")
else()
  message(STATUS "No CUDA toolkit (or TESKD_CUDA is off): built without GPU support")
endif()
