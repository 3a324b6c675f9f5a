#define PB_ROWS_TABLE pb_rows_scalar
#include "kernels/cpu/rows_table.h"
