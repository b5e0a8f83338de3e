/*
 * What a step cannot cost less than: clone with new namespaces, an overlay of three layers with its root changed to it, proc
 * mounted, execve, wait. No confinement, no cgroup, no init, no files of its own. Prints the median of ROUNDS in microseconds;
 * `plain_step DIRECTORY PROGRAM-IN-IT`. Needs root.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 201 };

static void must(int result, const char *what) {
    if (result < 0) { perror(what); _exit(1); }
}

static int child(const char *place, const char *lower, char *program) {
    char options[65536], root[8192];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile", lower, place, place);
    snprintf(root, sizeof root, "%s/root", place);
    must(mount("none", "/", NULL, MS_PRIVATE | MS_REC, NULL), "private");
    must(mount("overlay", root, "overlay", 0, options), "overlay");
    must(chdir(root), "chdir");
    must((int) syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount");
    must(chdir("/"), "chdir /");
    must(mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL), "proc");
    char *arguments[] = { program, NULL }, *environment[] = { "PATH=/bin", NULL };
    execve(program, arguments, environment);
    perror("execve");
    _exit(127);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

int main(int count, char **words) {
    if (count != 3) { fprintf(stderr, "usage: plain_step DIRECTORY PROGRAM-IN-IT\n"); return 2; }
    static double times[ROUNDS];
    char base[] = "/tmp/plain-step-XXXXXX", path[16384], lower[16384];
    if (!mkdtemp(base)) { perror("mkdtemp"); return 1; }
    snprintf(path, sizeof path, "%s/a", base); mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/b", base); mkdir(path, 0755);
    snprintf(lower, sizeof lower, "%s/a:%s/b:%s", base, base, words[1]);
    for (int round = 0; round < ROUNDS; round++) {
        char place[4096 + 16];
        snprintf(place, sizeof place, "%s/%d", base, round);
        mkdir(place, 0755);
        for (const char **name = (const char *[]) { "upper", "work", "root", NULL }; *name; name++) {
            snprintf(path, sizeof path, "%s/%s", place, *name);
            mkdir(path, 0755);
        }
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | SIGCHLD;
        /* No CLONE_VM: the child uses the copy of this stack that fork gives it. */
        long pid = syscall(SYS_clone, flags, 0L, 0L, 0L, 0L);
        if (pid == 0) child(place, lower, words[2]);
        must((int) pid, "clone");
        int status;
        must(waitpid((pid_t) pid, &status, 0), "waitpid");
        clock_gettime(CLOCK_MONOTONIC, &to);
        if (status != 0) { fprintf(stderr, "the program ended with status %d\n", status); return 1; }
        times[round] = (to.tv_sec - from.tv_sec) * 1e6 + (to.tv_nsec - from.tv_nsec) / 1e3;
    }
    qsort(times, ROUNDS, sizeof *times, by_value);
    printf("plain clone + overlay + exec: median %.0f us, best %.0f us of %d\n", times[ROUNDS / 2], times[0], ROUNDS);
    snprintf(path, sizeof path, "rm -rf '%s'", base);
    return system(path) != 0;
}
