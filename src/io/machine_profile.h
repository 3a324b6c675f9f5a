// Machine profiles: a pb_machine as a YAML file (docs/machines.md has the keys; configs/machines the built-in ones).
#ifndef PB_IO_MACHINE_PROFILE_H
#define PB_IO_MACHINE_PROFILE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/json.h"
#include "base/machine.h"

// The one entry for `--machine`: a built-in machine by name, else a profile's path; NULL or "this": pb_machine_this.
// Errors: PB_ERR_USAGE for what is neither (names the nearest built-in one); as pb_machine_profile_read.
pb_status pb_machine_find(pb_arena *arena, const char *name_or_path, pb_machine *out);

// All keys must be there, and every speed of every op. Errors: PB_ERR_FORMAT with line and column (an unknown key names
// the nearest right one; a number out of range names the range), PB_ERR_IO, PB_ERR_MEMORY. `name` is for messages.
pb_status pb_machine_profile_read(pb_arena *arena, const char *path, pb_machine *out);
pb_status pb_machine_profile_parse(pb_arena *arena, const char *text, size_t bytes, const char *name, pb_machine *out);

// The file's text; numbers read back as the same. `heading` (lines that begin with '#', or "") comes first.
void pb_machine_profile_print(const pb_machine *machine, const char *heading, pb_text *text);
pb_status pb_machine_profile_write(const char *path, const char *heading, const pb_machine *machine);

#endif
