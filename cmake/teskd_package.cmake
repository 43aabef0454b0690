# `cpack -G DEB` in a build folder makes a Debian package of the program and its recipes. What it depends on is read from
# the program (dpkg-shlibdeps, of dpkg-dev); CUDA's libraries are opened at run time and are no dependency.
set(CPACK_PACKAGE_NAME teskd)
set(CPACK_PACKAGE_CONTACT "teskd contributors <teskd@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Distributed trainer for self-knowledge distillation (TESKD)")
set(CPACK_PACKAGE_DESCRIPTION "Trains an image classifier together with three student branches that share its stages,
on CPUs and GPUs of one machine or of many.")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS openmpi-bin)
include(CPack)
