# Libraries for LD_PRELOAD, and what shows that they work; the scripts find them in the build's folder tests/fault.
# Sanitizers have an allocator and interposers of their own: their builds go without.
if(PB_SANITIZE STREQUAL "" AND NOT PB_COVERAGE)
  foreach(shim alloc_count io_fault)
    add_library(${shim} MODULE fault/${shim}.c)
    target_compile_options(${shim} PRIVATE -Wall -Wextra -Werror -Wshadow -U_FORTIFY_SOURCE -fvisibility=hidden)
    target_compile_definitions(${shim} PRIVATE _GNU_SOURCE)
    target_link_libraries(${shim} PRIVATE ${CMAKE_DL_LIBS})
    set_target_properties(${shim} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fault)
  endforeach()
  foreach(probe alloc_probe io_probe)
    add_executable(${probe} fault/${probe}.c)
    # Not optimised: a malloc whose result is not used may be left out.
    target_compile_options(${probe} PRIVATE -Wall -Wextra -Werror -O0 -U_FORTIFY_SOURCE)
    target_compile_definitions(${probe} PRIVATE _GNU_SOURCE)
    set_target_properties(${probe} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/fault)
  endforeach()
endif()
