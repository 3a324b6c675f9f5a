#include "kernels/cpu/gemm.h"

#include <assert.h>
#include <string.h>

#include "base/parallel.h"
#include "kernels/cpu/gemm_kernels.h"

// How the product is cut, in the manner of Goto and BLIS. Each thread owns a rectangle of the output. Within it a block
// of the right operand is packed to stay in the second-level cache, as deep along K as that allows; rows of the left
// operand pass by in panels of one tile's height, copied into the first-level cache just before they are used. So the
// left operand is the one that may be large and come from memory: where the product's right operand is the larger one
// (weights against few pixels), the transposed product is computed and transposed back at the end.
// The order of additions for an element depends on K alone: runs of k_block units in order, each summed in order.
enum {
    N_BLOCK = 640,         // columns of the right operand's block
    B_FLOATS = 208 << 10,  // its size: 832 kB
    M_BLOCK = 1008,        // rows of sums that wait for the rest of K: at most 2.6 MB
    LOCATED = 64,          // rows whose addresses are looked up at once
    TURNED = 64,           // rows and columns that are transposed at once at the end of a transposed product
    ALIGNMENT = 64
};

typedef struct plan {
    pb_gemm_path path;
    bool transposed;
    int64_t m, n;  // of the product that is computed
    const pb_gemm_operand *left, *right;
    int64_t segment_units, units;
    int64_t k_block, k_depth;                // units of a tile; of the right operand's block, a multiple of k_block
    int64_t grid_m, grid_n, m_part, n_part;  // parts of the grid, one per thread
    int64_t m_block, n_block;
    bool gathers;  // sums wait for all of an m_block, not of a panel
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
    return (pb_gemm_path){k, &k->tile, unit, 1, dtype == PB_F32 ? 4 : 2};
}

// Estimated cost of a part of the product, in vector multiply-adds per unit of K: the tiles, and packing, at what it
// was measured to take per element.
static double part_cost(const plan *p, int64_t m, int64_t n) {
    const double lanes = p->path.kernels->lanes;
    const double tiles = (double)m * (double)round_up(n, p->path.kernels->lanes) / lanes;
    return tiles + 0.15 * (double)(m * divide_up(n, N_BLOCK)) + (p->right->along ? 0.5 : 0.2) * (double)n;
}

static void set_operands(plan *p, const pb_gemm *g, bool transposed) {
    p->transposed = transposed;
    p->m = transposed ? g->n : g->m;
    p->n = transposed ? g->m : g->n;
    p->left = transposed ? &g->b : &g->a;
    p->right = transposed ? &g->a : &g->b;
}

static void choose_operands(plan *p, const pb_gemm *g) {
    set_operands(p, g, true);
    // To transpose an element back takes about as long as a vector multiply-add.
    const double turned = part_cost(p, p->m, p->n) + (double)p->m * (double)p->n / (double)(p->units + !p->units);
    set_operands(p, g, false);
    if (g->a.along && g->b.along && turned < part_cost(p, p->m, p->n)) set_operands(p, g, true);
}

static void choose_grid(plan *p) {
    const int64_t columns = 2 * p->path.kernels->lanes;
    // A part below this many multiply-adds is not worth waking a thread for.
    const double worth = 2e4 * p->path.kernels->lanes;
    const double work = (double)p->m * (double)p->n * (double)p->units;
    int threads = pb_threads();
    if (work < worth * threads) threads = work < 2 * worth ? 1 : (int)(work / worth);
    p->grid_m = p->grid_n = 1;
    double best = part_cost(p, p->m, p->n);
    for (int tm = 1; tm <= threads; tm++) {
        const int64_t m_part = divide_up(p->m, tm), n_part = round_up(divide_up(p->n, threads / tm), columns);
        const double cost = part_cost(p, m_part, least(n_part, p->n));
        if (cost < best) {
            best = cost;
            p->grid_m = divide_up(p->m, m_part);
            p->grid_n = divide_up(p->n, n_part);
        }
    }
    p->m_part = divide_up(p->m, p->grid_m);
    p->n_part = p->grid_n == 1 ? p->n : round_up(divide_up(p->n, p->grid_n), columns);
}

static plan make_plan(const pb_gemm *g) {
    plan p = {.path = pb_gemm_path_for(g->dtype)};
    assert(g->k_segments <= 1 || g->n_segments == 1);
    const int64_t lanes = p.path.kernels->lanes;
    p.segment_units = divide_up(g->k_length, p.path.step);
    p.units = g->k_segments * p.segment_units;
    choose_operands(&p, g);
    choose_grid(&p);
    const int64_t k_blocks = divide_up(p.units, PB_ROW_UNITS_MAX);
    p.k_block = k_blocks ? divide_up(p.units, k_blocks) : 1;
    p.n_block = round_up(divide_up(p.n_part, divide_up(p.n_part, N_BLOCK)), lanes);
    p.k_depth = B_FLOATS / p.n_block / p.k_block * p.k_block;
    if (p.k_depth < p.k_block) p.k_depth = p.k_block;
    if (p.k_depth > p.units) p.k_depth = round_up(p.units, p.k_block);
    p.gathers = p.transposed || p.k_depth < p.units;
    p.m_block = divide_up(p.m_part, divide_up(p.m_part, M_BLOCK));
    const int64_t sums = (p.gathers ? p.m_block : PB_TILE_ROWS_MAX) * p.n_block + (p.transposed ? TURNED * TURNED : 0);
    p.a_bytes = round_up((PB_ROW_STRIDE * PB_TILE_ROWS_MAX + PB_TILE_COLUMNS_MAX) * 4, ALIGNMENT);
    p.b_bytes = round_up((p.k_depth * p.n_block + PB_TILE_COLUMNS_MAX) * 4, ALIGNMENT);
    p.thread_bytes = p.a_bytes + p.b_bytes + round_up(sums * 4, ALIGNMENT);
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

// Units [begin, end) along K of an operand, at its rows or columns [first, first + count).
typedef struct slice {
    const pb_gemm *g;
    const plan *p;
    const pb_gemm_operand *operand;
    int64_t begin, end, first, count;
} slice;

// The part of a slice that starts at unit `u` and lies within one segment of K; offset and length in elements.
typedef struct k_run {
    int64_t segment, offset, length, units;
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

// Rows that run along K become the rows of a left operand (width 0), or a panel of that width.
static void pack_along(const slice *s, int64_t width, float *to) {
    const pb_gemm_path *path = &s->p->path;
    const char *rows[PB_TILE_COLUMNS_MAX];
    for (int64_t u = s->begin; u < s->end;) {
        const k_run r = k_run_at(s, u);
        s->operand->locate(s->operand->context, r.segment, s->first, s->count, rows);
        if (width)
            path->kernels->pack_along(to + (u - s->begin) * width, width, rows, s->count, r.offset, r.length,
                                      path->unit);
        else
            path->kernels->copy_rows(to + (u - s->begin), rows, s->count, r.offset, r.length, path->unit);
        u += r.units;
    }
}

// The width of the panel at column c of `columns`: two vectors, one for a short tail.
static int64_t panel_width(const plan *p, int64_t c, int64_t columns) {
    return columns - c > p->path.kernels->lanes ? 2 * p->path.kernels->lanes : p->path.kernels->lanes;
}

// Rows that run across K become panels, each `wide` columns wide (0: as panel_width says). The panel at column c starts
// at float c * (end - begin).
static void pack_across(const slice *s, int64_t wide, float *panels) {
    const pb_gemm *g = s->g;
    const int step = s->p->path.step;
    const bool segmented = g->n_segments > 1 && s->operand == &g->b;
    const char *rows[LOCATED];
    for (int64_t u = s->begin; u < s->end;) {
        k_run r = k_run_at(s, u);
        r.units = least(r.units, LOCATED / step);
        r.length = least(r.length, LOCATED);
        int64_t located = -1, panel = 0, width = wide ? wide : panel_width(s->p, 0, s->count);
        for (int64_t c = 0; c < s->count;) {
            if (c == panel + width) {
                panel = c;
                width = wide ? wide : panel_width(s->p, c, s->count);
            }
            const int64_t column = s->first + c, segment = segmented ? column / g->n_length : 0;
            const int64_t within = column - segment * g->n_length;
            // To the end of the panel, or all full panels, as far as the segment goes.
            int64_t run = least(panel + width, s->count) - c;
            const int64_t left = segmented ? least(s->count - c, g->n_length - within) : s->count - c;
            if (left < run)
                run = left;
            else if (c == panel)
                run = left / width * width > run ? left / width * width : run;
            if (located != segment) {
                located = segment;
                s->operand->locate(s->operand->context, r.segment + segment, r.offset, r.length, rows);
            }
            float *to = panels + panel * (s->end - s->begin) + (u - s->begin) * width + (c - panel);
            s->p->path.kernels->pack_across(to, width, width * (s->end - s->begin), rows, run, within, r.length,
                                            s->p->path.unit);
            c += run;
            if (run > width) panel = c - width;
        }
        u += r.units;
    }
}

static void pack_right(const slice *s, float *panels) {
    const int64_t units = s->end - s->begin;
    for (int64_t c = 0; c < s->count;) {
        slice panel = *s;
        const int64_t width = panel_width(s->p, c, s->count);
        panel.first += c;
        panel.count = least(width, s->count - c);
        // The columns past the edge are multiplied as well: zeros, since garbage may be slow.
        if (panel.count < width) memset(panels + c * units, 0, (size_t)(width * units) * sizeof(float));
        if (s->operand->along) pack_along(&panel, width, panels + c * units);
        c += width;
    }
    if (!s->operand->along) pack_across(s, 0, panels);
}

// The lines of memory of a slice that is packed next, to be asked for while the tiles before it are computed.
typedef struct ahead {
    slice s;
    int64_t at;     // unit
    int64_t share;  // lines per tile
    const char *rows[LOCATED];
    int64_t count, row, offset, line, lines;  // of the located rows; lines of each
} ahead;

enum { LINE = 64 };

static ahead ahead_of(slice s, int64_t tiles) {
    const int64_t lines = (s.end - s.begin) * s.count * 4 / LINE;
    return (ahead){.s = s, .at = s.begin, .share = lines / (tiles ? tiles : 1) + 1};
}

static bool locate_ahead(ahead *h) {
    if (h->at >= h->s.end) return false;
    const int size = h->s.p->path.size;
    const bool along = h->s.operand->along;
    k_run r = k_run_at(&h->s, h->at);
    if (!along) {
        r.units = least(r.units, LOCATED / h->s.p->path.step);
        r.length = least(r.length, LOCATED);
    }
    h->count = along ? h->s.count : r.length;
    h->offset = (along ? r.offset : h->s.first) * size;
    h->lines = divide_up((along ? r.length : h->s.count) * size, LINE);
    h->s.operand->locate(h->s.operand->context, r.segment, along ? h->s.first : r.offset, h->count, h->rows);
    h->row = h->line = 0;
    h->at += r.units;
    return true;
}

// Up to `most` of the lines' addresses; returns how many.
static int64_t take_ahead(ahead *h, int64_t most, const char **soon) {
    int64_t n = 0;
    most = least(most, h->share);
    while (n < most) {
        if (h->row == h->count && !locate_ahead(h)) break;
        const char *row = h->rows[h->row];
        for (; row && h->line < h->lines && n < most; h->line++) soon[n++] = row + h->offset + h->line * LINE;
        if (!row || h->line == h->lines) {
            h->line = 0;
            h->row++;
        }
    }
    return n;
}

// ---- the product ----------------------------------------------------------------------------------------------------

typedef struct run {
    const pb_gemm *g;
    plan p;
    char *workspace;
} run;

// One row of the output as it was asked for, columns [n, n + columns).
static void finish_row(const run *r, int64_t m, int64_t n, int64_t columns, float *sums) {
    const pb_gemm *g = r->g;
    const pb_gemm_kernels *kernels = r->p.path.kernels;
    const int size = r->p.path.size;
    const int64_t at = ((g->out_row ? g->out_row(g->out_context, m) : m) * g->n + n) * size;
    char *out = (char *)g->out + at;
    if (g->streams) {
        if (g->dtype != PB_F32) kernels->finish(sums, sums, columns, g->dtype, NULL, NULL, NULL);
        kernels->stream(out, sums, columns * size);
        return;
    }
    kernels->finish(out, sums, columns, g->dtype, g->bias ? g->bias + n : NULL,
                    g->rowbias ? (const char *)g->rowbias + (m / g->rowbias_rows * g->n + n) * size : NULL,
                    g->addend ? (const char *)g->addend + at : NULL);
}

// Rows [m, m + rows), columns [n, n + columns) of the product that was computed.
static void finish_block(const run *r, int64_t m, int64_t rows, int64_t n, int64_t columns, float *sums) {
    const int64_t ldc = r->p.n_block;
    if (!r->p.transposed) {
        for (int64_t i = 0; i < rows; i++) finish_row(r, m + i, n, columns, sums + i * ldc);
        return;
    }
    float *turned = sums + r->p.m_block * ldc;
    for (int64_t i = 0; i < rows; i += TURNED)
        for (int64_t j = 0; j < columns; j += TURNED) {
            const int64_t high = least(TURNED, rows - i), wide = least(TURNED, columns - j);
            const char *from[TURNED];
            for (int64_t k = 0; k < high; k++) from[k] = (const char *)(sums + (i + k) * ldc);
            r->p.path.kernels->pack_along(turned, TURNED, from, high, j, wide, PB_UNIT_F32);
            for (int64_t k = 0; k < wide; k++) finish_row(r, n + j + k, m + i, high, turned + k * TURNED);
        }
}

// Rows [m, m + rows) of the product with the right operand's block of units [k0, k1); `next` is its next block, if any.
static void run_panels(const run *r, const slice *right, const slice *next, int64_t m, int64_t rows, float *a,
                       const float *b, float *sums) {
    const plan *p = &r->p;
    const int64_t k0 = right->begin, k1 = right->end, columns = right->count;
    const int64_t panels = divide_up(rows, p->path.kernels->rows), lanes = p->path.kernels->lanes, ldc = p->n_block;
    const int64_t tiles = divide_up(columns, 2 * lanes), depth = divide_up(k1 - k0, p->k_block);
    const pb_left form = p->left->along ? PB_LEFT_ROWS : PB_LEFT_PANEL;
    const char *soon[PB_ROW_UNITS_MAX];
    // Weights come from memory: they are the left operand of a transposed product, or the right one across K.
    ahead h = {0};
    if (next) h = ahead_of(*next, panels * depth * tiles);
    int64_t at = 0;
    for (int64_t i = 0; i < panels; i++) {
        const int64_t height = rows / panels + (i < rows % panels);
        float *c = p->gathers ? sums + at * ldc : sums;
        for (int64_t k = k0; k < k1; k += p->k_block) {
            slice s = {r->g, p, p->left, k, least(k + p->k_block, k1), m + at, height};
            if (p->left->along)
                pack_along(&s, 0, a);
            else
                pack_across(&s, height, a);
            const int64_t units = s.end - k;
            if (p->transposed) {
                // The same rows' next run along K, or the next rows.
                s.begin = s.end < k1 ? s.end : k0;
                s.end = least(s.begin + p->k_block, k1);
                if (s.begin == k0) s.first += height;
                s.count = least(height, p->m - s.first);
                h = s.count > 0 ? ahead_of(s, tiles) : (ahead){0};
            }
            for (int64_t j = 0; j < columns;) {
                const int64_t width = panel_width(p, j, columns), asked = take_ahead(&h, units, soon);
                (*p->path.tile)[form][width > lanes][height - 1](units, a, b + j * (k1 - k0) + (k - k0) * width, c + j,
                                                                 ldc, k > 0, soon, asked);
                j += width;
            }
        }
        if (!p->gathers) finish_block(r, m + at, height, right->first, columns, c);
        at += height;
    }
}

static void run_part(const run *r, int64_t part) {
    const pb_gemm *g = r->g;
    const plan *p = &r->p;
    char *workspace = r->workspace + part * p->thread_bytes;
    float *a = (float *)workspace, *b = (float *)(workspace + p->a_bytes);
    float *sums = (float *)(workspace + p->a_bytes + p->b_bytes);
    const int64_t m_begin = part / p->grid_n * p->m_part, m_end = least(m_begin + p->m_part, p->m);
    const int64_t n_begin = part % p->grid_n * p->n_part, n_end = least(n_begin + p->n_part, p->n);
    const bool asks = !p->right->along && g->n_segments == 1;
    for (int64_t n = n_begin; n < n_end; n += p->n_block) {
        const int64_t columns = least(p->n_block, n_end - n);
        for (int64_t m = m_begin; m < m_end; m += p->m_block) {
            const int64_t rows = least(p->m_block, m_end - m);
            if (!p->units) memset(sums, 0, (size_t)((p->gathers ? rows : 1) * p->n_block) * sizeof(float));
            for (int64_t k = 0; k < p->units; k += p->k_depth) {
                const slice s = {g, p, p->right, k, least(k + p->k_depth, p->units), n, columns};
                const slice next = {g, p, p->right, s.end, least(s.end + p->k_depth, p->units), n, columns};
                // A block as deep as K serves all rows.
                if (p->k_depth < p->units || m == m_begin) pack_right(&s, b);
                run_panels(r, &s, asks && s.end < p->units ? &next : NULL, m, rows, a, b, sums);
            }
            if (p->gathers)
                finish_block(r, m, rows, n, columns, sums);
            else if (!p->units)
                for (int64_t i = 0; i < rows; i++) finish_block(r, m + i, 1, n, columns, sums);
        }
    }
    if (g->streams) p->path.kernels->stream_end();
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
