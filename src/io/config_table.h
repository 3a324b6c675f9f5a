// The rows of config.def as a table, for the files of io/config.
#ifndef PB_IO_CONFIG_TABLE_H
#define PB_IO_CONFIG_TABLE_H

#include <stddef.h>

#include "io/run_config.h"

typedef enum pb_config_kind {
    PB_CONFIG_SECTION,  // a heading; `key` is its title
    PB_CONFIG_STRING,
    PB_CONFIG_PATH,
    PB_CONFIG_BOOL,
    PB_CONFIG_INT,
    PB_CONFIG_MAYBE_INT,
    PB_CONFIG_REAL,
    PB_CONFIG_MAYBE_REAL,
    PB_CONFIG_COUNT,
    PB_CONFIG_SIZE,
    PB_CONFIG_ENUM,
    PB_CONFIG_NAME,
    PB_CONFIG_INERT,
    PB_CONFIG_REFUSED
} pb_config_kind;

typedef struct pb_config_choice {
    const char *name;  // NULL ends the list
    int value;
} pb_config_choice;

typedef struct pb_config_key {
    pb_config_kind kind;
    const char *key;      // with its group: "memory.device"
    size_t offset;        // of the field in pb_config
    const char *initial;  // YAML
    double low, high;
    const pb_config_choice *choices;
    const char *doc;  // or why the key changes nothing, or is refused
} pb_config_key;

enum { PB_CONFIG_CHOICES = 8 };  // the most that a key has

extern const pb_config_key pb_config_keys[];
extern const int pb_config_key_count;

#endif
