#define PB_CODECS_TABLE pb_codecs_avx512
#include "quant/codecs_simd.h"
