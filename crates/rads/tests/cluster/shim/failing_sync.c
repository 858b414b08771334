/* A disk that fails once: while a file `fail` lies beside the segments of a shared log, the next sync of one takes it away and fails
 * with EIO, as Linux does after a write that never reached the disk. Loaded into an agent by LD_PRELOAD. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    char *name = strrchr(path, '/');
    if (!name || strncmp(name, "/journal-", strlen("/journal-")) != 0)
        return 0;
    strcpy(name, "/fail");
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
