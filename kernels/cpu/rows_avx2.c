#define PB_ROWS_TABLE pb_rows_avx2
#include "kernels/cpu/rows_table.h"
