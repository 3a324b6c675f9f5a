#include <signal.h>
#include <unistd.h>

#include "train/trainer_parts.h"

static volatile sig_atomic_t caught;

// The second signal does not wait: whatever is on the disk is whole at any instant.
static void on_signal(int number) {
    if (caught) _exit(128 + number);
    caught = number;
}

void pb_signals_catch(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    // Under nohup the terminal may go, and the run stays.
    struct sigaction before;
    if (sigaction(SIGHUP, NULL, &before) || before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, NULL);
}

void pb_signals_outlive_reader(void) {
    signal(SIGPIPE, SIG_IGN);
}

int pb_signals_caught(void) {
    return caught;
}
