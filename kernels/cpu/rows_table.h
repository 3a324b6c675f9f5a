// The table of row kernels for the instruction set that the including file is compiled for; PB_ROWS_TABLE names it.
#include "kernels/cpu/rows_convert.h"
#include "kernels/cpu/rows_elementwise.h"
#include "kernels/cpu/rows_norm.h"

const pb_row_kernels PB_ROWS_TABLE = {
    .load = row_load,
    .store = row_store,
    .round = row_round,
    .activate = row_activate,
    .activate_bwd = row_activate_bwd,
    .geglu_bwd = row_geglu_bwd,
    .add = row_add,
    .multiply = row_multiply,
    .scaled_difference = row_scaled_difference,
    .sum_squares = row_sum_squares,
    .sum_squared_difference = row_sum_squared_difference,
    .adamw = row_adamw,
    .column_sums = row_column_sums,
    .column_moments = row_column_moments,
    .normalise = row_normalise,
    .norm_bwd_sums = row_norm_bwd_sums,
    .norm_bwd_data = row_norm_bwd_data,
    .layer_norm = row_layer_norm,
    .layer_norm_bwd = row_layer_norm_bwd,
};
