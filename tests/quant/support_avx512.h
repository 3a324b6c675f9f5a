// The codecs' AVX-512 code on any machine with AVX2: the instructions that it uses, as loops over lanes. Where the
// machine has AVX-512 the tests run the real code as well.
#ifndef PB_TESTS_QUANT_SUPPORT_AVX512_H
#define PB_TESTS_QUANT_SUPPORT_AVX512_H

#include "quant/codecs.h"

extern const pb_codecs pb_codecs_emulated;  // on a machine with AVX2

#endif
