// The commands. Each takes its own part of the command line, argv[0] being its name; messages are left in pb_error.
#ifndef PB_CLI_COMMANDS_H
#define PB_CLI_COMMANDS_H

#include "base/error.h"

#define PB_COMMAND(name, summary) pb_status pb_command_##name(int argc, char **argv);
#include "cli/commands.def"
#undef PB_COMMAND

#endif
