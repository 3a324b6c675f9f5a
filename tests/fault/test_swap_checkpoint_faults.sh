#!/usr/bin/env bash
# As test_checkpoint_faults.sh, of a run whose state lies in a swap file: checkpoints take the file over, and the run goes
# on in a new one. Faults strike there as well.
# usage: test_swap_checkpoint_faults.sh PROGRAM SOURCE_DIR BUILD_DIR [all]
exec bash "$2/tests/fault/test_checkpoint_faults.sh" "$1" "$2" "$3" "${4:-short}" paged
