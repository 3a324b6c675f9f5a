#include <stdio.h>

int main(void) {
    puts("pagebooth " PB_VERSION);
    return 0;
}
