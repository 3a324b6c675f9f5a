// The commands' entry points, from commands.def. argv[0] is the command's name.
#ifndef PB_CLI_COMMANDS_H
#define PB_CLI_COMMANDS_H

#include "base/error.h"

#define PB_COMMAND(name, summary) pb_status pb_command_##name(int argc, char **argv);
#include "cli/commands.def"
#undef PB_COMMAND

#endif
