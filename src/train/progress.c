#include "train/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

static const double redraw_seconds = 0.1, line_seconds = 10.0;

// Losing a line of progress is no reason to stop.
static void put(const char *text, size_t bytes) {
    while (bytes > 0) {
        const ssize_t written = write(STDERR_FILENO, text, bytes);
        if (written <= 0) return;
        text += written;
        bytes -= (size_t)written;
    }
}

void pb_progress_begin(pb_progress *p, int64_t first, int64_t total) {
    *p = (pb_progress){.first = first, .total = total, .begun = pb_seconds_now(), .columns = 80};
    struct winsize size;
    p->terminal = isatty(STDERR_FILENO);
    if (p->terminal && !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col > 0) p->columns = size.ws_col;
}

static void format_duration(double seconds, char *text, size_t bytes) {
    const long long s = (long long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(text, bytes, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, bytes, "%lld:%02lld", s / 60, s % 60);
}

static void draw_bar(pb_progress *p, int64_t step, const char *figures) {
    char text[512], bar[64];
    int width = p->columns - (int)strlen(figures) - 4;
    if (width > (int)sizeof bar - 1) width = (int)sizeof bar - 1;
    if (width < 0) width = 0;
    const int done = (int)((double)width * (double)step / (double)(p->total ? p->total : 1));
    memset(bar, '.', (size_t)width);
    memset(bar, '=', (size_t)(done < width ? done : width));
    bar[width] = 0;
    const int bytes =
        snprintf(text, sizeof text, "\r[%s] %.*s\033[K", bar, p->columns > 4 ? p->columns - 4 - width : 0, figures);
    put(text, bytes < (int)sizeof text ? (size_t)bytes : sizeof text - 1);
    p->open = true;
}

void pb_progress_step(pb_progress *p, int64_t step, double loss, double lr, double seconds) {
    const double now = pb_seconds_now();
    const int64_t done = step - p->first;
    const bool edge = done == 1 || step == p->total;
    if (!edge && now - p->shown < (p->terminal ? redraw_seconds : line_seconds)) return;
    p->shown = now;
    char remaining[32], figures[256];
    format_duration((now - p->begun) / (double)(done ? done : 1) * (double)(p->total - step), remaining,
                    sizeof remaining);
    snprintf(figures, sizeof figures, "step %lld/%lld  loss %.4f  lr %.3g  %.3g s/step  %s left", (long long)step,
             (long long)p->total, loss, lr, seconds, remaining);
    if (p->terminal) {
        draw_bar(p, step, figures);
        return;
    }
    const size_t bytes = strlen(figures);
    figures[bytes] = '\n';
    put(figures, bytes + 1);
}

void pb_progress_count(pb_progress *p, const char *what, int64_t done, int64_t total) {
    char text[128];
    const double now = pb_seconds_now();
    if (!isatty(STDERR_FILENO) || (done != total && now - p->shown < redraw_seconds)) return;
    p->shown = now;
    const int bytes = snprintf(text, sizeof text, "\r%s %lld/%lld\033[K", what, (long long)done, (long long)total);
    put(text, (size_t)bytes);
    p->open = true;
}

void pb_progress_end(pb_progress *p) {
    if (p->open) put("\n", 1);
    p->open = false;
}

void pb_progress_note(pb_progress *p, const char *format, ...) {
    char text[4096 + 512], shown[sizeof text];
    pb_progress_end(p);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pb_error_escape(text, shown, sizeof shown - 1);
    const size_t bytes = strlen(shown);
    shown[bytes] = '\n';
    put(shown, bytes + 1);
}
