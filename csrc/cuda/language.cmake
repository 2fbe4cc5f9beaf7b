# Finds nvcc and enables CUDA as a language, for the processors that the build is for.
include(CheckLanguage)

# CMake looks at CUDACXX and PATH; the usual places come after that.
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(
    RETINAFACE_NVCC nvcc
    HINTS ENV CUDA_HOME ENV CUDA_PATH
    PATHS /usr/local/cuda
    PATH_SUFFIXES bin)
  mark_as_advanced(RETINAFACE_NVCC)
  if(RETINAFACE_NVCC)
    set(CMAKE_CUDA_COMPILER ${RETINAFACE_NVCC})
  endif()
endif()

# One binary for each generation that there is a difference for, and code that newer drivers translate for
# newer devices. Before the language is enabled, which would set a default of its own.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES
      "75-real;80-real;90"
      CACHE STRING "Compute capabilities that the CUDA kernels are compiled for")
endif()

check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(DEFINED ENV{CUDACXX})
    set(told " (CUDACXX is \"$ENV{CUDACXX}\")")
  endif()
  message(
    FATAL_ERROR
      "RETINAFACE_CUDA is ON and there is no CUDA compiler that works${told}. Install the CUDA toolkit, or point "
      "to it with CUDACXX=/path/to/nvcc in the environment or with CMAKE_CUDA_COMPILER=/path/to/nvcc, by -D for "
      "cmake and by -C cmake.define. for pip. Without RETINAFACE_CUDA the package needs none.")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
  message(FATAL_ERROR "RETINAFACE_CUDA needs CUDA 11.8 or newer, this is ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
message(STATUS "CUDA kernels for: ${CMAKE_CUDA_ARCHITECTURES}")
