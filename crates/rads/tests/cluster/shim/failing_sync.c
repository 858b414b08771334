/* A disk that fails once: while a file named as the log with `.fail` behind it is there, the next sync of that log takes it away and
 * fails with EIO, as Linux does after a write that never reached the disk. Loaded into an agent by LD_PRELOAD. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd)
{
    static const char log[] = "/shared.redb";
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - sizeof ".fail");
    if (length < (ssize_t)strlen(log))
        return 0;
    path[length] = 0;
    if (strcmp(path + length - strlen(log), log) != 0)
        return 0;
    strcpy(path + length, ".fail");
    return unlink(path) == 0;
}

int fdatasync(int fd)
{
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    if (fails(fd)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}
