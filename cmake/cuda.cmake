# The CUDA toolkit, where there is one. nvcc is called by commands of our own rather than as a language of CMake's: then
# C's linker links the program, without the C++ library, and one flag list says all that matters about device code.
#   PB_CUDA                AUTO: with CUDA if nvcc is here and works; ON: fails without; OFF: CPU only
#   PB_CUDA_ARCHITECTURES  compute capabilities; fewer compile faster:  cmake --preset release -DPB_CUDA_ARCHITECTURES=86
# The environment's variables of these names are the defaults.
# Sets PB_WITH_CUDA. The runtime is linked statically and the driver never: it is looked for at run time, so that one
# program runs on machines with and without a GPU, a driver, or a toolkit.
set(default_cuda AUTO)
set(default_architectures 75 80 86 89 90 120)
if(DEFINED ENV{PB_CUDA})
  set(default_cuda $ENV{PB_CUDA})
endif()
if(DEFINED ENV{PB_CUDA_ARCHITECTURES})
  string(REPLACE " " ";" default_architectures "$ENV{PB_CUDA_ARCHITECTURES}")
endif()
set(PB_CUDA ${default_cuda} CACHE STRING "CUDA backend: AUTO, ON or OFF")
set_property(CACHE PB_CUDA PROPERTY STRINGS AUTO ON OFF)
set(PB_CUDA_ARCHITECTURES ${default_architectures} CACHE STRING "compute capabilities that device code is made for")

# Sets PB_NVCC, PB_CUDA_ROOT and PB_CUDA_VERSION, or `why` to what is missing.
function(pb_find_cuda why)
  set(${why} "" PARENT_SCOPE)
  find_program(PB_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT PB_NVCC)
    set(${why} "no nvcc in PATH or /usr/local/cuda" PARENT_SCOPE)
    return()
  endif()
  get_filename_component(nvcc ${PB_NVCC} REALPATH)
  get_filename_component(root ${nvcc} DIRECTORY)
  get_filename_component(root ${root} DIRECTORY)
  execute_process(COMMAND ${PB_NVCC} --version OUTPUT_VARIABLE text ERROR_QUIET)
  string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" _ "${text}")
  set(version ${CMAKE_MATCH_1})
  if(NOT version OR version VERSION_LESS 12.8)
    set(${why} "${PB_NVCC} is CUDA ${version}; 12.8 is the first that knows every architecture" PARENT_SCOPE)
    return()
  endif()
  find_path(PB_CUDA_INCLUDE cuda_runtime_api.h HINTS ${root}/include ${root}/targets/x86_64-linux/include)
  find_library(PB_CUDART cudart_static HINTS ${root}/lib64 ${root}/lib ${root}/targets/x86_64-linux/lib)
  if(NOT PB_CUDA_INCLUDE OR NOT PB_CUDART)
    set(${why} "no cuda_runtime_api.h or libcudart_static.a below ${root}" PARENT_SCOPE)
    return()
  endif()
  # Of cuDNN the headers are enough; 9.11 is the first that plans for a GPU that is not here.
  find_path(PB_CUDNN_INCLUDE cudnn_graph.h HINTS ${root}/include ${root}/targets/x86_64-linux/include)
  set(plans)
  if(PB_CUDNN_INCLUDE)
    file(STRINGS ${PB_CUDNN_INCLUDE}/cudnn_graph.h plans REGEX "CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP")
  endif()
  if(NOT plans)
    set(${why} "no headers of cuDNN 9.11 or later (cudnn_graph.h; -DPB_CUDNN_INCLUDE=folder)" PARENT_SCOPE)
    return()
  endif()
  # Whether it works with the compiler that is here; once per build folder.
  if(NOT PB_NVCC_WORKS STREQUAL PB_NVCC)
    file(WRITE ${PROJECT_BINARY_DIR}/cuda/probe.cu "__global__ void probe(float *x) { x[threadIdx.x] = 1; }\n")
    execute_process(COMMAND ${PB_NVCC} -arch=sm_86 -c probe.cu -o probe.o WORKING_DIRECTORY ${PROJECT_BINARY_DIR}/cuda
      RESULT_VARIABLE failed ERROR_VARIABLE text OUTPUT_VARIABLE text)
    if(failed)
      set(${why} "${PB_NVCC} does not work here: ${text}" PARENT_SCOPE)
      return()
    endif()
    set(PB_NVCC_WORKS ${PB_NVCC} CACHE INTERNAL "")
  endif()
  set(PB_CUDA_VERSION ${version} PARENT_SCOPE)
endfunction()

set(PB_WITH_CUDA OFF)
set(pb_no_cuda "PB_CUDA is OFF")
if(NOT PB_CUDA STREQUAL "OFF")
  pb_find_cuda(pb_no_cuda)
  if(NOT pb_no_cuda)
    set(PB_WITH_CUDA ON)
  elseif(PB_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PB_CUDA is ON, but: ${pb_no_cuda}")
  endif()
endif()

# -Xptxas: a kernel that spills registers to memory does not compile. -ffp-contract and the like are the host's; on the
# device multiply and add contract except where a kernel asks for __fmul_rn or fmaf by name.
# Kernels for six architectures are mostly alike: compressed they take a fifth, and the driver unpacks them at start.
set(PB_NVCC_FLAGS -std=c++17 -O3 --compress-mode=size -Xptxas=--warn-on-spills,--warning-as-error -Werror=all-warnings
  -Xcompiler=-fPIC,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-Wall,-Wextra --threads 2)
# Kernels of ours use nothing that came after sm_80 (native bf16 conversions), so the front end runs for compute_75 and
# compute_80 only, and ptxas for each architecture: 40% less time. Newer cards than these have compute_80's PTX, which
# their driver compiles.
set(PB_NVCC_TARGETS)
set(from_80)
list(GET PB_CUDA_ARCHITECTURES -1 newest)
foreach(architecture ${PB_CUDA_ARCHITECTURES})
  if(architecture LESS 80)
    list(APPEND PB_NVCC_TARGETS -gencode arch=compute_${architecture},code=sm_${architecture})
  else()
    list(APPEND from_80 sm_${architecture})
  endif()
endforeach()
list(APPEND from_80 compute_80)
list(JOIN from_80 "," from_80)
list(APPEND PB_NVCC_TARGETS -gencode "arch=compute_80,code=[${from_80}]")

# For tests/unit/test_cuda_build.sh.
if(PB_WITH_CUDA)
  list(JOIN PB_NVCC_FLAGS " " flags)
  file(WRITE ${PROJECT_BINARY_DIR}/cuda/command.txt "${PB_NVCC} ${flags} -arch=sm_${newest}\n")
else()
  file(REMOVE ${PROJECT_BINARY_DIR}/cuda/command.txt)
endif()

# Sets `objects` to one object file per .cu file of `folder`.
function(pb_cuda_objects objects folder)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cu)
  set(all)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
    set(exact)
    if(name MATCHES "adamw")  # the bits of the other backends: no contraction but where fmaf says so
      set(exact --fmad=false)
    endif()
    add_custom_command(OUTPUT ${object} DEPENDS ${source} DEPFILE ${object}.d
      COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${PB_NVCC} ${PB_NVCC_FLAGS} ${PB_NVCC_TARGETS} ${exact}
        -I${PROJECT_BINARY_DIR}/include/base -I${PROJECT_BINARY_DIR}/include/kernels
        -I${PROJECT_BINARY_DIR}/include/quant
        -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object}
      COMMENT "Building CUDA object ${name}.o" VERBATIM)
    list(APPEND all ${object})
  endforeach()
  set_source_files_properties(${all} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  set(${objects} ${all} PARENT_SCOPE)
endfunction()

# kernels/cuda with a toolkit; without one, only what says so (*_absent.c).
function(pb_cuda_library)
  file(GLOB sources CONFIGURE_DEPENDS kernels/cuda/*.c)
  set(absent ${sources})
  list(FILTER absent INCLUDE REGEX "_absent\\.c$")
  list(REMOVE_ITEM sources ${absent})
  if(NOT PB_WITH_CUDA)
    add_library(pb_cuda STATIC ${absent})
    target_link_libraries(pb_cuda PRIVATE pb_warnings ${ARGN})
    return()
  endif()
  pb_cuda_objects(objects kernels/cuda)
  add_library(pb_cuda STATIC ${sources} ${objects})
  target_include_directories(pb_cuda SYSTEM PRIVATE ${PB_CUDA_INCLUDE} ${PB_CUDNN_INCLUDE})
  target_link_libraries(pb_cuda PRIVATE pb_warnings ${ARGN} ${PB_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
endfunction()
