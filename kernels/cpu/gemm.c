#include "kernels/cpu/gemm.h"

#include <assert.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/gemm_kernels.h"

// How the product is cut, in the manner of Goto and BLIS: each thread owns a rectangle of the output. Within it a block
// of b, k_block x n_block, is packed to stay in the second-level cache; a's rows pass by in panels of one tile's height
// that are packed into the first-level cache just before they are used, and the sums of m_block x n_block wait in fp32.
// The order of additions for an element depends on K alone: blocks of k_block in order, each summed in order.
enum {
    K_BLOCK = 320,   // units; an a panel of 14 rows takes 18 kB
    N_BLOCK = 640,   // columns; a b block takes 800 kB
    M_BLOCK = 1008,  // rows; the sums take 2.6 MB
    LOCATED = 32,    // rows whose addresses are looked up at once
    ALIGNMENT = 64
};

typedef struct plan {
    pb_gemm_path path;
    int64_t segment_units, units, k_block, k_blocks;
    int64_t grid_m, grid_n, m_part, n_part;  // parts of the grid, one per thread
    int64_t m_block, n_block;
    int64_t a_bytes, b_bytes, thread_bytes;
} plan;

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t round_up(int64_t a, int64_t b) {
    return divide_up(a, b) * b;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

pb_gemm_path pb_gemm_path_for(pb_dtype dtype) {
    const pb_isa isa = pb_cpu_isa();
    const pb_gemm_kernels *k = isa.level == PB_ISA_AVX512 ? pb_gemm_kernels_avx512()
                               : isa.level == PB_ISA_AVX2 ? pb_gemm_kernels_avx2()
                                                          : pb_gemm_kernels_scalar();
    if (dtype == PB_BF16 && isa.bf16) return (pb_gemm_path){k, pb_gemm_tiles_avx512bf16(), PB_UNIT_PAIR, 2, 2};
    const pb_unit unit = dtype == PB_F32 ? PB_UNIT_F32 : dtype == PB_F16 ? PB_UNIT_F16 : PB_UNIT_BF16;
    return (pb_gemm_path){k, k->tile, unit, 1, dtype == PB_F32 ? 4 : 2};
}

// Estimated cost of one thread's part, in vector multiply-adds: the tiles, and packing at half a vector operation per
// element, a once per n_block.
static double part_cost(const plan *p, int64_t m, int64_t n) {
    const double lanes = p->path.kernels->lanes;
    const double tiles = (double)m * (double)round_up(n, p->path.kernels->lanes) / lanes;
    const double packing = 0.5 * ((double)m * (double)divide_up(n, N_BLOCK) + (double)n);
    return (tiles + packing) * (double)p->units;
}

static plan make_plan(const pb_gemm *g) {
    plan p = {.path = pb_gemm_path_for(g->dtype)};
    assert(g->k_segments <= 1 || g->n_segments == 1);
    const int64_t columns = 2 * p.path.kernels->lanes;
    p.segment_units = divide_up(g->k_length, p.path.step);
    p.units = g->k_segments * p.segment_units;
    p.k_blocks = divide_up(p.units, K_BLOCK);
    p.k_block = p.k_blocks ? divide_up(p.units, p.k_blocks) : 0;
    // A part below this many multiply-adds is not worth waking a thread for.
    const double worth = 2e4 * p.path.kernels->lanes;
    const double work = (double)g->m * (double)g->n * (double)p.units;
    int threads = pb_threads();
    if (work < worth * threads) threads = work < 2 * worth ? 1 : (int)(work / worth);
    p.grid_m = p.grid_n = 1;
    double best = part_cost(&p, g->m, g->n);
    for (int tm = 1; tm <= threads; tm++) {
        const int tn = threads / tm;
        const int64_t m_part = divide_up(g->m, tm), n_part = round_up(divide_up(g->n, tn), columns);
        const double cost = part_cost(&p, m_part, least(n_part, g->n));
        if (cost < best) {
            best = cost;
            p.grid_m = divide_up(g->m, m_part);
            p.grid_n = divide_up(g->n, n_part);
        }
    }
    p.m_part = divide_up(g->m, p.grid_m);
    p.n_part = p.grid_n == 1 ? g->n : round_up(divide_up(g->n, p.grid_n), columns);
    p.n_block = round_up(divide_up(p.n_part, divide_up(p.n_part, N_BLOCK)), columns);
    // With a single block along K the sums are finished panel by panel.
    p.m_block = divide_up(p.m_part, divide_up(p.m_part, M_BLOCK));
    const int64_t sums = p.k_blocks > 1 ? p.m_block : PB_TILE_ROWS_MAX;
    p.a_bytes = round_up((p.k_block * PB_TILE_ROWS_MAX + PB_TILE_COLUMNS_MAX) * 4, ALIGNMENT);
    p.b_bytes = round_up((p.k_block * p.n_block + PB_TILE_COLUMNS_MAX) * 4, ALIGNMENT);
    p.thread_bytes = p.a_bytes + p.b_bytes + round_up(sums * p.n_block * 4, ALIGNMENT);
    return p;
}

uint64_t pb_gemm_workspace(const pb_gemm *g) {
    const plan p = make_plan(g);
    return (uint64_t)(p.thread_bytes * p.grid_m * p.grid_n);
}

void pb_gemm_locate_matrix(const void *matrix, int64_t segment, int64_t first, int64_t count, const char **rows) {
    const pb_gemm_matrix *x = matrix;
    const char *row = x->data + segment * x->segment_bytes + first * x->row_bytes;
    for (int64_t i = 0; i < count; i++) rows[i] = row + i * x->row_bytes;
}

// ---- packing --------------------------------------------------------------------------------------------------------

// Units [begin, end) along K, for one operand; at columns [first, first + count) of it.
typedef struct slice {
    const pb_gemm *g;
    const plan *p;
    const pb_gemm_operand *operand;
    int64_t begin, end;
    int64_t first, count;
    bool is_b;
} slice;

// The part of the slice that starts at unit `u` and lies within one segment of K.
typedef struct k_run {
    int64_t segment, offset, length, units;  // offset and length in elements
} k_run;

static k_run k_run_at(const slice *s, int64_t u) {
    const int step = s->p->path.step;
    k_run r = {.segment = u / s->p->segment_units};
    const int64_t within = u % s->p->segment_units;
    r.units = least(s->p->segment_units - within, s->end - u);
    r.offset = within * step;
    r.length = least(r.units * step, s->g->k_length - r.offset);
    return r;
}

// A panel of rows that run along K, `width` wide.
static void pack_along_panel(const slice *s, int64_t first, int64_t count, int64_t width, float *panel) {
    const char *rows[PB_TILE_COLUMNS_MAX];
    for (int64_t u = s->begin; u < s->end;) {
        const k_run r = k_run_at(s, u);
        s->operand->locate(s->operand->context, r.segment, first, count, rows);
        s->p->path.kernels->pack_along(panel + (u - s->begin) * width, width, rows, count, r.offset, r.length,
                                       s->p->path.unit);
        u += r.units;
    }
}

// All panels of a slice whose rows run across K. Panel j starts at float j * panel_columns * (end - begin).
static void pack_across_panels(const slice *s, int64_t panel_columns, float *panels) {
    const pb_gemm *g = s->g;
    const int step = s->p->path.step;
    const char *rows[LOCATED];
    for (int64_t u = s->begin; u < s->end;) {
        k_run r = k_run_at(s, u);
        r.units = least(r.units, LOCATED / step);
        r.length = least(r.length, LOCATED);
        int64_t located = -1;
        for (int64_t c = 0; c < s->count;) {
            const int64_t column = s->first + c;
            const int64_t segment = s->is_b ? column / g->n_length : 0, within = s->is_b ? column % g->n_length : column;
            const int64_t panel = c / panel_columns, at = c % panel_columns;
            const int64_t width = least(panel_columns, s->count - panel * panel_columns);
            int64_t run = width - at;
            if (s->is_b) run = least(run, g->n_length - within);
            if (located != segment) {
                located = segment;
                s->operand->locate(s->operand->context, r.segment + segment, r.offset, r.length, rows);
            }
            const int64_t stride = s->is_b ? panel_columns : width;
            float *to = panels + panel * panel_columns * (s->end - s->begin) + (u - s->begin) * stride + at;
            s->p->path.kernels->pack_across(to, stride, rows, run, within, r.length, s->p->path.unit);
            c += run;
        }
        u += r.units;
    }
}

static void pack_b(const slice *s, int64_t columns, float *panels) {
    const int64_t units = s->end - s->begin;
    const int64_t tail = s->count % columns;
    // The columns past the edge are multiplied as well, so they must not be garbage that traps or slows down.
    if (tail) memset(panels + (s->count - tail) * units, 0, (size_t)(columns * units) * sizeof(float));
    if (!s->operand->along) {
        pack_across_panels(s, columns, panels);
        return;
    }
    for (int64_t c = 0; c < s->count; c += columns)
        pack_along_panel(s, s->first + c, least(columns, s->count - c), columns, panels + c * units);
}

// ---- the product ----------------------------------------------------------------------------------------------------

typedef struct run {
    const pb_gemm *g;
    plan p;
    char *workspace;
} run;

static void finish_rows(const run *r, int64_t m, int64_t rows, int64_t n, int64_t columns, const float *sums,
                        int64_t ldc) {
    const pb_gemm *g = r->g;
    const int size = r->p.path.size;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t row = g->out_row ? g->out_row(g->out_context, m + i) : m + i;
        const int64_t at = (row * g->n + n) * size;
        const char *rowbias = g->rowbias ? (const char *)g->rowbias + ((m + i) / g->rowbias_rows * g->n + n) * size : NULL;
        r->p.path.kernels->finish((char *)g->out + at, sums + i * ldc, columns, g->dtype, g->bias ? g->bias + n : NULL,
                                  rowbias, g->addend ? (const char *)g->addend + at : NULL);
    }
}

// Rows [m, m + rows) of the product with the packed block of b.
static void run_panels(const run *r, int64_t k0, int64_t k1, int64_t m, int64_t rows, int64_t n, int64_t columns,
                       float *a, const float *b, float *sums) {
    const plan *p = &r->p;
    const int64_t lanes = p->path.kernels->lanes, tall = p->path.kernels->rows;
    const int64_t panels = divide_up(rows, tall), units = k1 - k0, ldc = p->n_block;
    int64_t at = 0;
    for (int64_t i = 0; i < panels; i++) {
        const int64_t height = rows / panels + (i < rows % panels);
        const slice s = {r->g, p, &r->g->a, k0, k1, m + at, height, false};
        if (r->g->a.along) pack_along_panel(&s, m + at, height, height, a);
        else pack_across_panels(&s, height, a);
        float *c = p->k_blocks > 1 ? sums + at * ldc : sums;
        for (int64_t j = 0; j < columns; j += 2 * lanes)
            p->path.tile[1][height - 1](units, a, b + j * units, c + j, ldc, k0 > 0);
        if (k1 == p->units) finish_rows(r, m + at, height, n, columns, c, ldc);
        at += height;
    }
}

static void run_part(const run *r, int64_t part) {
    const pb_gemm *g = r->g;
    const plan *p = &r->p;
    char *workspace = r->workspace + part * p->thread_bytes;
    float *a = (float *)workspace, *b = (float *)(workspace + p->a_bytes);
    float *sums = (float *)(workspace + p->a_bytes + p->b_bytes);
    const int64_t m_begin = part / p->grid_n * p->m_part, m_end = least(m_begin + p->m_part, g->m);
    const int64_t n_begin = part % p->grid_n * p->n_part, n_end = least(n_begin + p->n_part, g->n);
    for (int64_t n = n_begin; n < n_end; n += p->n_block) {
        const int64_t columns = least(p->n_block, n_end - n);
        for (int64_t m = m_begin; m < m_end; m += p->m_block) {
            const int64_t rows = least(p->m_block, m_end - m);
            for (int64_t k = 0; k < p->units; k += p->k_block) {
                const slice s = {g, p, &g->b, k, least(k + p->k_block, p->units), n, columns, true};
                // With one block along K the rows' blocks share it.
                if (p->k_blocks > 1 || m == m_begin) pack_b(&s, 2 * p->path.kernels->lanes, b);
                run_panels(r, s.begin, s.end, m, rows, n, columns, a, b, sums);
            }
            if (!p->units) {
                memset(sums, 0, (size_t)columns * sizeof(float));
                for (int64_t i = 0; i < rows; i++) finish_rows(r, m + i, 1, n, columns, sums, p->n_block);
            }
        }
    }
}

static void run_parts(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    for (int64_t part = begin; part < end; part++) run_part(context, part);
}

void pb_gemm_run(const pb_gemm *g, void *workspace) {
    run r = {g, make_plan(g), workspace};
    pb_parallel_for(r.p.grid_m * r.p.grid_n, 1, run_parts, &r);
}

// ---- column sums ----------------------------------------------------------------------------------------------------

typedef struct column_sums {
    float *out, *partial;
    const char *x;
    int64_t rows, columns;
    pb_dtype dtype;
    const pb_gemm_kernels *kernels;
} column_sums;

static void sum_columns(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    enum { ROWS = 128 };  // summed apart before they join the total, which keeps the rounding errors small
    const column_sums *s = context;
    const int64_t size = s->dtype == PB_F32 ? 4 : 2, count = end - begin;
    memset(s->out + begin, 0, (size_t)count * sizeof(float));
    for (int64_t r = 0; r < s->rows; r += ROWS) {
        memset(s->partial + begin, 0, (size_t)count * sizeof(float));
        s->kernels->add_rows(s->partial + begin, s->x + (r * s->columns + begin) * size, count,
                             least(ROWS, s->rows - r), s->columns, s->dtype);
        s->kernels->add_rows(s->out + begin, s->partial + begin, count, 1, 0, PB_F32);
    }
}

uint64_t pb_gemm_column_sums_workspace(int64_t columns) {
    return (uint64_t)round_up(columns * 4, ALIGNMENT);
}

void pb_gemm_column_sums(float *out, const void *x, int64_t rows, int64_t columns, pb_dtype dtype, void *workspace) {
    column_sums s = {out, workspace, x, rows, columns, dtype, pb_gemm_path_for(PB_F32).kernels};
    pb_parallel_for(columns, rows * columns < 1 << 15 ? columns : 32, sum_columns, &s);
}
