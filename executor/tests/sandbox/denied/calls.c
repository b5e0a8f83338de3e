/* Makes system calls by number and tells their error numbers.
 *
 *   calls ABI:NUMBER[:ARG0[:ARG1[:ARG2]]]...      ABI: native, x32, i386
 *
 * Prints one "ABI:NUMBER... ERRNO" a line, 0 for success. Arguments that are not given are zero, so that a call which
 * reaches the kernel fails with something else than EPERM and ENOSYS, or does nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static long i386(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char text[128];
		long arguments[4] = {0};
		int count = 0, status;
		strncpy(text, argv[i], sizeof text - 1);
		text[sizeof text - 1] = 0;
		char *abi = strtok(text, ":");
		for (char *part; count < 4 && (part = strtok(NULL, ":"));)
			arguments[count++] = strtol(part, NULL, 0);
		/* Each in a process of its own: some would end this one. */
		pid_t pid = fork();
		if (!pid) {
			long result;
			if (!strcmp(abi, "i386")) {
				result = i386(arguments[0], arguments[1], arguments[2], arguments[3]);
				_exit(result < 0 && result > -200 ? -result : 0);
			}
			long bit = strcmp(abi, "x32") ? 0 : 0x40000000;
			result = syscall(arguments[0] | bit, arguments[1], arguments[2], arguments[3], 0, 0, 0);
			_exit(result < 0 ? errno : 0);
		}
		waitpid(pid, &status, 0);
		printf("%s %d\n", argv[i], WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
		fflush(stdout);
	}
	return 0;
}
