#include "train/saved_state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/json.h"
#include "io/safetensors_dtype.h"

enum { MAP_LIMIT = 1 << 26, EXTENTS_MAX = 1 << 20 };

struct pb_saved_state_private {
    pb_arena *arena;
    pb_saved_state state;
    pb_saved_tensor *tensors;
    const char *map, *swap;  // paths
    int fd;                  // of state.swap, or -1
    pb_safetensors *memory;  // or NULL
};

bool pb_saved_state_is_there(const char *checkpoint) {
    pb_arena *arena = pb_arena_create();
    const char *map = arena ? pb_fs_join(arena, checkpoint, PB_SAVED_MAP) : NULL;
    const bool there = map && pb_fs_kind_of(map) == PB_FS_FILE;
    pb_arena_destroy(arena);
    return there;
}

static pb_status wrong(const struct pb_saved_state_private *s, const char *what, const char *name) {
    return pb_error(PB_ERR_FORMAT, "%s: %s (%.200s): it is not what a run wrote; resume from another checkpoint",
                    s->map, what, name);
}

// A count of bytes or an offset of the map; -1 where it is absent, negative or no whole number.
static int64_t get(const pb_json *object, const char *key) {
    const pb_json *value = pb_json_get(object, key);
    return value && value->type == PB_JSON_NUMBER && value->is_integer && value->integer >= 0 ? value->integer : -1;
}

static const char *get_text(const pb_json *object, const char *key) {
    const pb_json *value = pb_json_get(object, key);
    return value && value->type == PB_JSON_STRING && strlen(value->string) == value->string_bytes ? value->string
                                                                                                  : NULL;
}

static pb_status read_extents(struct pb_saved_state_private *s, const pb_json *list) {
    if (!list) return PB_OK;
    if (list->type != PB_JSON_ARRAY || list->count > EXTENTS_MAX)
        return wrong(s, "extents that are no list", "extents");
    pb_saved_extent *extents = pb_arena_array(s->arena, list->count + 1, sizeof *extents);
    if (!extents) return pb_error(PB_ERR_MEMORY, "no memory to read %s", s->map);
    for (const pb_json *item = list->first; item; item = item->next) {
        const int64_t offset = get(item, "offset"), bytes = get(item, "bytes");
        const char *hash = get_text(item, "xxh3_128");
        pb_saved_extent *e = &extents[s->state.extent_count++];
        *e = (pb_saved_extent){.offset = (uint64_t)offset, .bytes = (uint64_t)bytes};
        if (offset < 0 || bytes < 1 || !hash || !pb_hash_parse(hash, e->hash) || e->offset > s->state.swap_bytes ||
            e->bytes > s->state.swap_bytes - e->offset)
            return wrong(s, "an extent without place or hash, or outside the file", PB_SAVED_SWAP);
    }
    s->state.extents = extents;
    return PB_OK;
}

static pb_status read_piece(const struct pb_saved_state_private *s, const pb_saved_tensor *t, const pb_json *item,
                            pb_saved_piece *piece) {
    const int64_t bytes = get(item, "bytes"), at = get(item, "at"), extent = get(item, "extent");
    if (bytes < 1 || at < 0 || (uint64_t)bytes > t->bytes - piece->begin)
        return wrong(s, "a piece of no place", t->name);
    piece->bytes = (uint64_t)bytes;
    piece->at = (uint64_t)at;
    piece->swapped = pb_json_get(item, "extent") != NULL;
    uint64_t room = 0;
    if (piece->swapped) {
        if (extent < 0 || (uint64_t)extent >= s->state.extent_count) return wrong(s, "a piece of no extent", t->name);
        piece->extent = (uint32_t)extent;
        room = s->state.extents[extent].bytes;
    } else {
        const pb_safetensors_entry *entry = s->memory ? pb_safetensors_find(s->memory, t->name) : NULL;
        if (!entry || entry->dtype != t->dtype) return wrong(s, "a piece that " PB_SAVED_MEMORY " lacks", t->name);
        room = entry->bytes;
    }
    return piece->at > room || piece->bytes > room - piece->at ? wrong(s, "a piece outside its place", t->name) : PB_OK;
}

static pb_status read_shape(const struct pb_saved_state_private *s, const pb_json *item, pb_saved_tensor *t) {
    const char *dtype = get_text(item, "dtype");
    const pb_safetensors_dtype *type = dtype ? pb_safetensors_dtype_find(dtype, strlen(dtype)) : NULL;
    const pb_json *shape = pb_json_get(item, "shape");
    uint64_t elements;
    if (!type || type->dtype == PB_DTYPE_COUNT || !shape || shape->type != PB_JSON_ARRAY || shape->count > PB_ST_RANK)
        return wrong(s, "a tensor without dtype or shape", t->name);
    t->dtype = type->dtype;
    for (const pb_json *d = shape->first; d; d = d->next) {
        if (d->type != PB_JSON_NUMBER || !d->is_integer) return wrong(s, "a shape that is none", t->name);
        t->shape[t->rank++] = d->integer;
    }
    return pb_safetensors_tensor_bytes(type, t->rank, t->shape, &elements, &t->bytes)
               ? PB_OK
               : wrong(s, "a shape that is none", t->name);
}

static pb_status read_tensor(const struct pb_saved_state_private *s, const pb_json *item, pb_saved_tensor *t) {
    t->name = get_text(item, "name");
    const pb_json *list = pb_json_get(item, "pieces");
    if (!t->name || !list || list->type != PB_JSON_ARRAY)
        return wrong(s, "a tensor without name or pieces", t->name ? t->name : "?");
    PB_RETURN_IF(read_shape(s, item, t));
    pb_saved_piece *pieces = pb_arena_array(s->arena, list->count + 1, sizeof *pieces);
    if (!pieces) return pb_error(PB_ERR_MEMORY, "no memory to read %s", s->map);
    uint64_t begin = 0;
    for (const pb_json *one = list->first; one; one = one->next) {
        pieces[t->piece_count].begin = begin;
        PB_RETURN_IF(read_piece(s, t, one, &pieces[t->piece_count]));
        begin += pieces[t->piece_count++].bytes;
    }
    t->pieces = pieces;
    return begin == t->bytes ? PB_OK : wrong(s, "a tensor whose pieces are not all of it", t->name);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const pb_saved_tensor *)a)->name, ((const pb_saved_tensor *)b)->name);
}

static pb_status read_tensors(struct pb_saved_state_private *s, const pb_json *list) {
    if (!list || list->type != PB_JSON_ARRAY || list->count > PB_ST_TENSORS) return wrong(s, "no list", "tensors");
    s->tensors = pb_arena_array(s->arena, list->count + 1, sizeof *s->tensors);
    if (!s->tensors) return pb_error(PB_ERR_MEMORY, "no memory to read %s", s->map);
    for (const pb_json *item = list->first; item; item = item->next)
        PB_RETURN_IF(read_tensor(s, item, &s->tensors[s->state.count++]));
    qsort(s->tensors, s->state.count, sizeof *s->tensors, compare_names);
    for (size_t i = 1; i < s->state.count; i++)
        if (!compare_names(&s->tensors[i - 1], &s->tensors[i])) return wrong(s, "a tensor twice", s->tensors[i].name);
    s->state.tensors = s->tensors;
    return PB_OK;
}

// No link is followed: what it leads to is not what was verified, and belongs to somebody else.
static pb_status open_swap(struct pb_saved_state_private *s) {
    struct stat info;
    s->fd = open(s->swap, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (s->fd < 0)
        return pb_error(PB_ERR_IO, "cannot open %s: %s%s", s->swap, strerror(errno),
                        errno == ELOOP ? ": it is a symbolic link, which no run makes; put the file itself there" : "");
    if (fstat(s->fd, &info)) return pb_error(PB_ERR_IO, "cannot look at %s: %s", s->swap, strerror(errno));
    if (!S_ISREG(info.st_mode)) return pb_error(PB_ERR_IO, "%s is not a regular file: no run made it", s->swap);
    if ((uint64_t)info.st_size == s->state.swap_bytes) return PB_OK;
    return pb_error(PB_ERR_FORMAT, "%s: damaged: %llu bytes, where %s has %llu; resume from another checkpoint",
                    s->swap, (unsigned long long)info.st_size, PB_SAVED_MAP, (unsigned long long)s->state.swap_bytes);
}

static pb_status read_map(struct pb_saved_state_private *s, const char *checkpoint) {
    char *text;
    const char *format;
    size_t bytes;
    int64_t version, swap_bytes;
    const pb_json *root;
    s->map = pb_fs_join(s->arena, checkpoint, PB_SAVED_MAP);
    s->swap = pb_fs_join(s->arena, checkpoint, PB_SAVED_SWAP);
    s->state.path = pb_arena_string(s->arena, checkpoint);
    s->state.swap_path = s->swap;
    const char *memory = pb_fs_join(s->arena, checkpoint, PB_SAVED_MEMORY);
    if (!s->map || !s->swap || !s->state.path || !memory)
        return pb_error(PB_ERR_MEMORY, "no memory to read %s", checkpoint);
    PB_RETURN_IF(pb_fs_read_file(s->arena, s->map, MAP_LIMIT, &text, &bytes));
    PB_RETURN_IF(pb_json_parse(s->arena, text, bytes, s->map, &root));
    PB_RETURN_IF(pb_json_get_string(root, "format", "", s->map, &format));
    PB_RETURN_IF(pb_json_get_int(root, "version", 0, INT64_MAX, 0, s->map, &version));
    PB_RETURN_IF(pb_json_get_int(root, "swap_bytes", 0, INT64_MAX, 0, s->map, &swap_bytes));
    if (strcmp(format, "pagebooth-state") || version != 1)
        return pb_error(PB_ERR_FORMAT, "%s: not the map of a state that this version reads", s->map);
    s->state.swap_bytes = (uint64_t)swap_bytes;
    if (swap_bytes) PB_RETURN_IF(open_swap(s));
    if (pb_fs_kind_of(memory) != PB_FS_NONE) PB_RETURN_IF(pb_safetensors_open(memory, &s->memory));
    PB_RETURN_IF(read_extents(s, pb_json_get(root, "extents")));
    return read_tensors(s, pb_json_get(root, "tensors"));
}

pb_status pb_saved_state_open(const char *checkpoint, pb_saved_state **state) {
    pb_arena *arena = pb_arena_create();
    struct pb_saved_state_private *s = arena ? pb_arena_alloc(arena, sizeof *s) : NULL;
    if (!s) {
        pb_arena_destroy(arena);
        return pb_error(PB_ERR_MEMORY, "no memory to read %s", checkpoint);
    }
    s->arena = arena;
    s->fd = -1;
    s->state.private_ = s;
    const pb_status status = read_map(s, checkpoint);
    if (status == PB_OK)
        *state = &s->state;
    else
        pb_saved_state_close(&s->state);
    return status;
}

void pb_saved_state_close(pb_saved_state *state) {
    if (!state) return;
    struct pb_saved_state_private *s = state->private_;
    if (s->fd >= 0) close(s->fd);
    pb_safetensors_close(s->memory);
    pb_arena_destroy(s->arena);
}

// Which tensor begins in the extent or reaches into it, for the message.
static const char *tensor_in(const pb_saved_state *state, size_t extent) {
    for (size_t i = 0; i < state->count; i++)
        for (size_t k = 0; k < state->tensors[i].piece_count; k++)
            if (state->tensors[i].pieces[k].swapped && state->tensors[i].pieces[k].extent == extent)
                return state->tensors[i].name;
    return "no tensor";
}

pb_status pb_saved_state_verify(const pb_saved_state *state) {
    const struct pb_saved_state_private *s = state->private_;
    // From the disk, not from memory, where the system agrees.
    if (s->fd >= 0) posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
    for (size_t i = 0; i < state->extent_count; i++) {
        const pb_saved_extent *e = &state->extents[i];
        char found[PB_HASH_TEXT], expected[PB_HASH_TEXT];
        pb_hash_text(e->hash, expected);
        PB_RETURN_IF(pb_hash_range(s->fd, e->offset, e->bytes, s->swap, found));
        if (strcmp(found, expected))
            return pb_error(PB_ERR_FORMAT,
                            "%s: damaged: bytes %llu to %llu (extent %zu, with %.200s) have the hash %s, where %s has "
                            "%s; resume from another checkpoint",
                            s->swap, (unsigned long long)e->offset, (unsigned long long)(e->offset + e->bytes), i,
                            tensor_in(state, i), found, PB_SAVED_MAP, expected);
    }
    return PB_OK;
}

const pb_saved_tensor *pb_saved_state_find(const pb_saved_state *state, const char *name) {
    const pb_saved_tensor key = {.name = name};
    return bsearch(&key, state->tensors, state->count, sizeof key, compare_names);
}

pb_status pb_saved_state_read(const pb_saved_state *state, const pb_saved_tensor *tensor, uint64_t begin,
                              uint64_t bytes, void *data) {
    const struct pb_saved_state_private *s = state->private_;
    unsigned char *to = data;
    if (begin > tensor->bytes || bytes > tensor->bytes - begin)
        return pb_error(PB_ERR_INTERNAL, "%s: bytes outside %s", s->map, tensor->name);
    for (size_t k = 0; k < tensor->piece_count && bytes; k++) {
        const pb_saved_piece *p = &tensor->pieces[k];
        if (begin - p->begin >= p->bytes) continue;  // before it or behind it
        const uint64_t inside = begin - p->begin, left = p->bytes - inside, part = bytes < left ? bytes : left;
        if (p->swapped)
            PB_RETURN_IF(pb_fs_pread(s->fd, to, part, state->extents[p->extent].offset + p->at + inside, s->swap));
        else
            PB_RETURN_IF(pb_safetensors_read_bytes(s->memory, pb_safetensors_find(s->memory, tensor->name),
                                                   p->at + inside, part, to));
        to += part;
        begin += part;
        bytes -= part;
    }
    return PB_OK;
}
