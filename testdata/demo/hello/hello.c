#include <stdio.h>

int main(void) {
  puts("Hello from an image that rbuild made.");
  return 0;
}
