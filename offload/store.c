// Opening, closing and commits. Reads and writes of extents are in transfer.c.
#include "offload/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "offload/store_internal.h"

enum {
    DEFAULT_REQUEST = 4 << 20,
    DEFAULT_DEPTH = 32,
    DEFAULT_OPERATIONS = 64,
    MOST_DEPTH = 1024,
    MOST_OPERATIONS = 4096,
    LARGE_PAGE = 2 << 20
};

static bool is_run_id(const char *id) {
    const size_t length = strlen(id);
    return length > 0 && length <= PB_STORE_RUN_ID_MAX &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == length;
}

static pb_status check_options(const pb_store_options *o) {
    if (!o->directory || !o->directory[0]) return pb_error(PB_ERR_USAGE, "the swap file needs a directory");
    if (o->run_id && !is_run_id(o->run_id))
        return pb_error(PB_ERR_USAGE, "\"%s\" cannot name a swap file: 1 to %d letters, digits, '-', '_', '.'",
                        o->run_id, PB_STORE_RUN_ID_MAX);
    if (o->extent_count == 0 || o->extent_count > PB_STORE_EXTENTS_MAX)
        return pb_error(PB_ERR_USAGE, "a swap file has 1 to %d extents, not %zu", PB_STORE_EXTENTS_MAX,
                        o->extent_count);
    for (size_t i = 0; i < o->extent_count; i++)
        if (o->capacities[i] == 0 || o->capacities[i] > PB_STORE_EXTENT_MAX || o->capacities[i] % PB_STORE_BLOCK)
            return pb_error(PB_ERR_USAGE, "extent %zu has %u bytes; whole blocks of %d up to %d are wanted", i,
                            o->capacities[i], PB_STORE_BLOCK, PB_STORE_EXTENT_MAX);
    if (o->request_bytes % PB_STORE_BLOCK || o->depth > MOST_DEPTH || o->operations > MOST_OPERATIONS)
        return pb_error(PB_ERR_USAGE,
                        "requests of %u bytes, %u at once, %u transfers at once: out of range for a swap file",
                        o->request_bytes, o->depth, o->operations);
    return PB_OK;
}

static pb_status allocate_store(const pb_store_options *o, pb_store **out) {
    pb_store *s = calloc(1, sizeof *s);
    if (!s) return pb_error(PB_ERR_MEMORY, "no memory for a swap file");
    s->file = s->old = PB_SWAP_FILE_NONE;
    s->handed = -1;
    *out = s;
    s->buffered = o->buffered;
    if (!(s->directory = strdup(o->directory))) return pb_error(PB_ERR_MEMORY, "no memory for a swap file");
    s->hook = s->file.hook = o->hook;
    s->slots = o->run_id ? 2 : 1;
    s->extent_count = o->extent_count;
    s->request_bytes = o->request_bytes ? o->request_bytes : DEFAULT_REQUEST;
    s->request_count = o->depth ? o->depth : DEFAULT_DEPTH;
    s->operation_count = o->operations ? o->operations : DEFAULT_OPERATIONS;
    s->queue_end = &s->queue;
    s->arrived_end = &s->arrived;
    s->layout = pb_record_layout(o->capacities, o->extent_count);
    s->extents = calloc(s->extent_count, sizeof *s->extents);
    s->operations = calloc(s->operation_count, sizeof *s->operations);
    s->requests = calloc(s->request_count, sizeof *s->requests);
    if (o->run_id) {
        snprintf(s->run_id, sizeof s->run_id, "%s", o->run_id);
        s->record_room = s->spare_bytes = pb_record_room(s->extent_count);
        s->record = aligned_alloc(PB_STORE_BLOCK, s->record_room);
        s->spare = aligned_alloc(PB_STORE_BLOCK, s->record_room);
        s->blob = malloc(PB_STORE_BLOB_MAX);
    }
    if (!s->extents || !s->operations || !s->requests || (o->run_id && !(s->record && s->spare && s->blob)))
        return pb_error(PB_ERR_MEMORY, "no memory for a swap file of %zu extents", s->extent_count);
    for (unsigned i = 0; i < s->operation_count; i++) s->operations[i].ticket = i;
    for (unsigned i = 0; i < s->request_count; i++) {
        s->requests[i].next = s->free_requests;
        s->free_requests = &s->requests[i];
    }
    return PB_OK;
}

static void lay_out(pb_store *s, const uint32_t *capacities) {
    uint64_t offset = 2 * (uint64_t)s->record_room;
    for (size_t i = 0; i < s->extent_count; i++) {
        s->extents[i] = (pb_extent){.offset = offset, .capacity = capacities[i], .committed = PB_NO_SLOT};
        offset += (uint64_t)s->slots * capacities[i];
    }
    s->info.file_bytes = offset;
}

static pb_status transfer_record(pb_store *s, pb_store_op op, unsigned slot, void *record, size_t bytes) {
    const pb_store_call call = {.op = op, .data = record, .bytes = bytes, .offset = slot * (uint64_t)s->record_room};
    const long result = pb_swap_file_transfer(&s->file, call);
    return result ? pb_swap_file_error(&s->file,
                                       op == PB_STORE_READ ? "read the commit record of" : "write the commit record of",
                                       result)
                  : PB_OK;
}

static pb_status sync_file(pb_store *s) {
    const long result = pb_swap_file_sync(&s->file);
    return result ? pb_swap_file_error(&s->file, "write out", result) : PB_OK;
}

static void adopt(pb_store *s, void *record, unsigned slot) {
    const pb_record_head *head = pb_record_head_of(record);
    const pb_entry *entries = pb_record_entries(record);
    for (size_t i = 0; i < s->extent_count; i++) {
        if (!entries[i].bytes) continue;
        pb_extent *extent = &s->extents[i];
        extent->committed = extent->current = (uint8_t)entries[i].slot;
        extent->entry[entries[i].slot] = entries[i];
        extent->state = PB_EXTENT_VALID;
    }
    memcpy(s->blob, pb_record_blob(record), head->blob_bytes);
    s->record_slot = slot;
    s->info.resumed = true;
    s->info.generation = head->generation;
    s->info.step = head->step;
    s->info.blob_bytes = head->blob_bytes;
}

// Takes the newest record of a file that was found, if there is one. It is then written once more: after an fsync that
// failed, what a read returns need not be on the disk, and the next commit overwrites the record before it. Where both
// places hold a good record the newest is written in place (a tear leaves the other); a lone one to the free place.
static pb_status resume(pb_store *s, const uint32_t *capacities, uint64_t found) {
    if (found != s->info.file_bytes) {
        snprintf(s->note, sizeof s->note, "%s was not used: it has %llu bytes, not %llu", s->file.path,
                 (unsigned long long)found, (unsigned long long)s->info.file_bytes);
        return PB_OK;
    }
    void *const records[2] = {s->record, s->spare};
    const char *faults[2];
    for (unsigned i = 0; i < 2; i++) {
        PB_RETURN_IF(transfer_record(s, PB_STORE_READ, i, records[i], s->record_room));
        faults[i] = pb_record_check(records[i], s->run_id, s->layout, capacities, s->extent_count);
    }
    if (faults[0] && faults[1]) {
        snprintf(s->note, sizeof s->note, "%s was not used: %s", s->file.path, faults[0]);
        return PB_OK;
    }
    const bool both = !faults[0] && !faults[1];
    const bool second =
        faults[0] || (both && pb_record_head_of(records[1])->generation > pb_record_head_of(records[0])->generation);
    const unsigned slot = both ? second : !second;
    PB_RETURN_IF(pb_swap_file_fill(&s->file, found));
    PB_RETURN_IF(transfer_record(s, PB_STORE_WRITE, slot, records[second], pb_record_seal(records[second])));
    PB_RETURN_IF(sync_file(s));
    adopt(s, records[second], slot);
    s->file.bytes = found;
    return PB_OK;
}

static bool is_touched(void *memory, size_t bytes) {
    unsigned char resident[LARGE_PAGE / PB_STORE_BLOCK];
    return !mincore(memory, bytes, resident) && memchr(resident, 1, sizeof resident);
}

// A transfer goes to the disk in as many pieces as its memory has, and scattered 4 KiB pages can halve the speed. So
// the system is asked for large pages: for what is touched later, and for what is there already, whose contents stay.
// It need not.
static void join_pages(void *memory, size_t bytes) {
    const int collapse = 25;  // MADV_COLLAPSE, Linux 6.1, which the C library's headers may not know
    const uintptr_t begin = ((uintptr_t)memory + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    const uintptr_t end = ((uintptr_t)memory + bytes) / LARGE_PAGE * LARGE_PAGE;
    if (!memory || begin >= end || madvise((void *)begin, end - begin, MADV_HUGEPAGE)) return;
    // One that cannot be joined must not keep the others from it.
    for (uintptr_t at = begin; at < end; at += LARGE_PAGE)
        if (is_touched((void *)at, LARGE_PAGE)) madvise((void *)at, LARGE_PAGE, collapse);
}

static pb_status start_engine(pb_store *s, const pb_store_options *o) {
    if (o->engine != PB_STORE_THREADS) {
        const pb_status status =
            pb_engine_create_uring(s->request_count, s->file.fd, o->memory, o->memory_bytes, o->hook, &s->engine);
        if (status != PB_ERR_UNSUPPORTED || o->engine == PB_STORE_URING) return status;
        pb_error_clear();
    }
    return pb_engine_create_threads(s->request_count, o->hook, &s->engine);
}

static void destroy(pb_store *s) {
    if (s->engine) s->engine->kind->destroy(s->engine);
    pb_swap_file_close(&s->file, !s->lost);
    pb_swap_file_close(&s->old, !s->lost);
    if (s->handed >= 0) close(s->handed);
    free(s->directory);
    free(s->extents);
    free(s->operations);
    free(s->requests);
    free(s->record);
    free(s->spare);
    free(s->blob);
    free(s);
}

pb_status pb_store_open(const pb_store_options *options, pb_store **store) {
    pb_status status = PB_OK;
    pb_store *s = NULL;
    uint64_t found = 0;
    PB_RETURN_IF(check_options(options));
    PB_TRY(allocate_store(options, &s));
    lay_out(s, options->capacities);
    PB_TRY(pb_swap_file_find(&s->file, options, &found));
    if (s->file.fd >= 0) PB_TRY(resume(s, options->capacities, found));
    if (!s->info.resumed) PB_TRY(pb_swap_file_create(&s->file, options, s->info.file_bytes));
    if (s->file.direct) join_pages(options->memory, options->memory_bytes);
    PB_TRY(start_engine(s, options));
    s->info.engine = s->engine->kind->name;
    s->info.direct = s->file.direct;
    s->info.registered_file = s->engine->registered_file;
    s->info.registered_memory = s->engine->registered_memory;
    s->info.path = s->file.path;
    s->info.note = s->note;
    s->info.blob = s->blob;
    *store = s;
    return PB_OK;
fail:
    if (s) destroy(s);
    return status;
}

pb_status pb_store_close(pb_store *store, bool keep) {
    if (!store) return PB_OK;
    pb_status status = pb_store_drain(store);
    if (!keep) {
        const pb_status removed = pb_swap_file_remove(&store->file);
        if (status == PB_OK) status = removed;
    }
    destroy(store);
    return status;
}

const pb_store_info *pb_store_get_info(pb_store *store) {
    return &store->info;
}

pb_store_tag pb_store_get_tag(const pb_store *store, size_t extent) {
    const pb_extent *e = &store->extents[extent];
    if (e->state != PB_EXTENT_VALID) return (pb_store_tag){0};
    const pb_entry *entry = &e->entry[e->current];
    return (pb_store_tag){entry->owner, entry->step, entry->generation, entry->bytes};
}

pb_store_place pb_store_get_place(const pb_store *store, size_t extent) {
    const pb_extent *e = &store->extents[extent];
    if (e->state != PB_EXTENT_VALID) return (pb_store_place){0};
    const pb_entry *entry = &e->entry[e->current];
    return (pb_store_place){.owner = entry->owner,
                            .offset = e->offset + (uint64_t)e->current * e->capacity,
                            .hash = {entry->hash[0], entry->hash[1]},
                            .bytes = entry->bytes};
}

// From here on nobody knows what the file holds, so nothing may be overwritten in it.
static pb_status give_up(pb_store *s, pb_status status) {
    snprintf(s->broken, sizeof s->broken,
             "%.300s; this commit failed, and the file is not used any further: start again, "
             "and the run goes on from the commit that is found",
             pb_error_message());
    return pb_error(status, "%s", s->broken);
}

static void write_out(pb_store *s, uint64_t step, const void *blob, size_t bytes) {
    memset(s->record, 0, s->record_room);
    pb_record_head *head = pb_record_head_of(s->record);
    *head = (pb_record_head){.layout = s->layout,
                             .generation = s->info.generation + 1,
                             .step = step,
                             .extent_count = (uint32_t)s->extent_count,
                             .blob_bytes = (uint32_t)bytes};
    memcpy(head->run_id, s->run_id, sizeof head->run_id);
    pb_entry *entries = pb_record_entries(s->record);
    for (size_t i = 0; i < s->extent_count; i++) {
        const pb_extent *e = &s->extents[i];
        if (e->state != PB_EXTENT_VALID) continue;
        entries[i] = e->entry[e->current];
        entries[i].slot = e->current;
    }
    if (bytes) memcpy(pb_record_blob(s->record), blob, bytes);
}

// A record that does not read back as it was written would lose the commit without a word.
static pb_status check_record(pb_store *s, unsigned slot, size_t bytes) {
    PB_RETURN_IF(transfer_record(s, PB_STORE_READ, slot, s->spare, bytes));
    if (!memcmp(s->record, s->spare, bytes)) return PB_OK;
    return pb_error(PB_ERR_IO, "%s: the commit record does not read back as it was written", s->file.path);
}

pb_status pb_store_commit(pb_store *store, uint64_t step, const void *blob, size_t bytes) {
    pb_store *s = store;
    if (!s->run_id[0])
        return pb_error(PB_ERR_UNSUPPORTED, "%s is scratch: only the file of a run can be committed", s->file.path);
    if (bytes > PB_STORE_BLOB_MAX)
        return pb_error(PB_ERR_USAGE, "a commit takes %d bytes along, not %zu", PB_STORE_BLOB_MAX, bytes);
    PB_RETURN_IF(pb_store_drain(s));
    if (s->broken[0]) return pb_error(PB_ERR_IO, "%s", s->broken);
    if (s->handed_over) return pb_error(PB_ERR_USAGE, "%s was handed over and is not written any more", s->file.path);
    for (size_t i = 0; i < s->extent_count; i++)
        if (s->extents[i].state == PB_EXTENT_BROKEN)
            return pb_error(PB_ERR_IO, "%s: extent %zu cannot be committed: its last write failed", s->file.path, i);

    pb_status status = sync_file(s);  // the data first: a record never names bytes that may be lost
    if (status != PB_OK) return give_up(s, status);
    write_out(s, step, blob, bytes);
    const unsigned slot = !s->record_slot;
    const size_t bytes_out = pb_record_seal(s->record);
    status = transfer_record(s, PB_STORE_WRITE, slot, s->record, bytes_out);
    if (status == PB_OK) status = sync_file(s);
    if (status == PB_OK) status = check_record(s, slot, bytes_out);
    if (status != PB_OK) return give_up(s, status);

    for (size_t i = 0; i < s->extent_count; i++)
        if (s->extents[i].state == PB_EXTENT_VALID) s->extents[i].committed = s->extents[i].current;
    s->record_slot = slot;
    s->info.generation++;
    s->info.step = step;
    if (bytes) memcpy(s->blob, blob, bytes);
    s->info.blob_bytes = bytes;
    return PB_OK;
}
