# The rooms of the house and who may include whom (docs/design.md). Each room's headers are reached as
# "<room>/<header>.h" through a folder of its own that holds nothing but a link to it, so that an include of a room
# that is not named here does not compile.
function(pb_room name folder)
  file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/${name})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${folder} ${PROJECT_BINARY_DIR}/include/${name}/${name} SYMBOLIC)
  add_library(pb_inc_${name} INTERFACE)
  target_include_directories(pb_inc_${name} INTERFACE ${PROJECT_BINARY_DIR}/include/${name})
endfunction()

foreach(room base graph plan nn io exec train cli)
  pb_room(${room} src/${room})
endforeach()
pb_room(kernels kernels)
pb_room(offload offload)
pb_room(quant quant)
set(base pb_inc_base)

pb_library(base src/base ${base} Threads::Threads PkgConfig::XXHASH)
pb_library(graph src/graph pb_inc_graph ${base})
pb_library(plan src/plan pb_inc_plan pb_inc_graph ${base} pb_graph)
pb_library(nn src/nn pb_inc_nn pb_inc_graph ${base} pb_graph)
pb_library(io src/io pb_inc_io ${base} pb_base PkgConfig::YAML PkgConfig::TURBOJPEG PkgConfig::SPNG ZLIB::ZLIB)
pb_library(offload offload pb_inc_offload ${base} pb_base PkgConfig::XXHASH PkgConfig::URING Threads::Threads)
pb_library(quant quant pb_inc_quant ${base} pb_base)
pb_library(cpu kernels/cpu pb_inc_kernels pb_inc_quant ${base} pb_quant pb_base Threads::Threads)
pb_library(ref kernels/ref pb_inc_kernels pb_inc_quant ${base} pb_quant pb_base)
pb_cuda_library(pb_inc_kernels pb_inc_quant ${base} pb_base pb_cpu)
pb_library(exec src/exec pb_inc_exec pb_inc_plan pb_inc_graph pb_inc_kernels pb_inc_offload ${base} pb_plan pb_cuda
  pb_cpu pb_ref pb_offload Threads::Threads)
pb_library(train src/train pb_inc_train pb_inc_exec pb_inc_plan pb_inc_graph pb_inc_nn pb_inc_io pb_inc_kernels
  pb_inc_quant ${base} pb_quant
  pb_exec pb_nn pb_io)
target_link_libraries(pb_graph PRIVATE pb_base)
# The commands; src/cli/main.c alone is the program.
pb_library(cli src/cli pb_inc_cli pb_inc_train pb_inc_exec pb_inc_nn pb_inc_io pb_inc_plan pb_inc_graph pb_inc_kernels
  pb_inc_offload pb_inc_quant ${base} pb_train pb_exec pb_nn pb_io pb_plan pb_graph pb_cuda pb_cpu pb_ref pb_quant
  pb_offload pb_base)
get_target_property(cli_sources pb_cli SOURCES)
list(FILTER cli_sources EXCLUDE REGEX "/main\\.c$")
set_target_properties(pb_cli PROPERTIES SOURCES "${cli_sources}")
target_compile_definitions(pb_cli PRIVATE PB_VERSION="${PROJECT_VERSION}")

# Vector code for one instruction set sits in a file named for it; the callers choose at run time.
file(GLOB avx512 CONFIGURE_DEPENDS kernels/*/*_avx512.c offload/*_avx512.c quant/*_avx512.c)
file(GLOB avx512bf16 CONFIGURE_DEPENDS kernels/*/*_avx512bf16.c)
file(GLOB avx2 CONFIGURE_DEPENDS kernels/*/*_avx2.c offload/*_avx2.c quant/*_avx2.c)
set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS
  "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma;-mf16c;-mprefer-vector-width=512")
set_source_files_properties(${avx512bf16} PROPERTIES COMPILE_OPTIONS
  "-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512bf16;-mfma;-mf16c;-mprefer-vector-width=512")
