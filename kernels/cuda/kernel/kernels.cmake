# The native kernels. Every GPU from Turing on: one of a later minor version (8.6, 8.9, 10.3, 12.1) runs the code of its
# major version's first. A toolkit before 12.8 knows those before Blackwell.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90-real)
  if(CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8)
    list(APPEND CMAKE_CUDA_ARCHITECTURES 100-real 120)
  else()
    list(APPEND CMAKE_CUDA_ARCHITECTURES 90-virtual)
  endif()
endif()
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
enable_language(CUDA)
set(kernel_sources batch_norm excite batched batched_losses linear_bn losses images pointwise pooling resample update upsample_bn upsample_bn_small)
list(TRANSFORM kernel_sources PREPEND kernel/)
list(TRANSFORM kernel_sources APPEND .cu)
add_library(teskd_cuda_kernels STATIC ${kernel_sources})
target_link_libraries(teskd_cuda_kernels PRIVATE teskd_backend teskd_cuda_lower_headers teskd_base stdc++)
target_compile_features(teskd_cuda_kernels PRIVATE cuda_std_17)
# A kernel that spills registers or uses local memory is warned about, on every architecture.
target_compile_options(teskd_cuda_kernels PRIVATE -Xcompiler=-Wall,-Wextra,-Wshadow
  -Xptxas=--warn-on-spills,--warn-on-local-memory-usage
  $<$<BOOL:${TESKD_WERROR}>:-Werror=all-warnings>)
