# The CUDA kernels' own sources, compiled as C++ for the CPU (docs/cuda.md), and tests/shim/test_*.c over them. No
# toolkit is needed, only a C++ compiler; ThreadSanitizer does not follow fibers, and there is one thread here.
include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER OR PB_SANITIZE STREQUAL "thread" OR PB_FUZZ)
  message(STATUS "tests: without the CUDA kernels' (they need a C++ compiler, and no ThreadSanitizer)")
  return()
endif()
enable_language(CXX)
file(GLOB kernel_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
set_source_files_properties(${kernel_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
set(shim_sources shim/shim.cc shim/shim_fiber.cc shim/shim_matrix.cc shim/shim_copies.cc)
function(pb_shim_settings target)
  set_target_properties(${target} PROPERTIES CXX_STANDARD 17)
  target_compile_definitions(${target} PRIVATE PB_SHIM _GNU_SOURCE)
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/shim)
  target_compile_options(${target} PRIVATE -g -Wall -Wextra -Werror -Wno-unknown-pragmas -fno-exceptions -fno-rtti
    -ffp-contract=off -fno-math-errno ${ARGN})
  target_link_libraries(${target} PRIVATE pb_inc_kernels pb_inc_quant pb_inc_base)
endfunction()
add_library(pb_shim STATIC ${kernel_sources} ${shim_sources})
pb_shim_settings(pb_shim -O2)
# The watched shim: the kernels compiled so that each load and store calls shim_watch.cc, as it stands in the source.
if(NOT PB_SANITIZE)
  add_library(pb_shim_watched_kernels OBJECT EXCLUDE_FROM_ALL ${kernel_sources} shim/planted.cc
    shim/fragments.cc)
  pb_shim_settings(pb_shim_watched_kernels -O1 $<$<CXX_COMPILER_ID:GNU>:-fno-tree-sra> -fsanitize=thread
    -fno-threadsafe-statics)
  add_library(pb_shim_watched STATIC EXCLUDE_FROM_ALL ${shim_sources} shim/shim_watch.cc shim/shim_count.cc
    $<TARGET_OBJECTS:pb_shim_watched_kernels>)
  pb_shim_settings(pb_shim_watched -O2)
  target_compile_definitions(pb_shim_watched PRIVATE PB_SHIM_WATCHED)
endif()
if(PB_SANITIZE STREQUAL "address")
  target_compile_definitions(pb_shim PRIVATE PB_SHIM_ASAN)
  target_compile_options(pb_shim PRIVATE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
endif()

file(GLOB shim_tests CONFIGURE_DEPENDS shim/test_*.c)
if(PB_SANITIZE)  # which need the compiler's instrumentation for themselves
  list(FILTER shim_tests EXCLUDE REGEX "test_shim_(watch|accesses)\\.c$")
endif()
file(GLOB shim_support CONFIGURE_DEPENDS ops/support_*.c)
foreach(source ${shim_tests})
  pb_test_program(${source})
  get_filename_component(name ${source} NAME_WE)
  pb_test_support(objects ${shim_support})
  target_sources(${name} PRIVATE ${objects} ${PROJECT_SOURCE_DIR}/kernels/cuda/cuda_together.c)
  # What the cases of tests/ops are made with.
  target_link_libraries(${name} PRIVATE pb_cpu pb_ref pb_quant pb_base)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900)
endforeach()
