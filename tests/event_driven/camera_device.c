/* A camera device, /dev/video7, for a process that this library is preloaded into: a Video4Linux driver in user space.

   64 x 48 pixels in YUYV, 30 frames a second, red, each frame brighter than the one before. Where CAMERA_FRAMES is set
   it fails after so many frames, until it is opened again. Only what a program that maps its buffers asks is answered. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, SIZE = WIDTH * HEIGHT * 2, PAGES = 8192, BUFFERS = 32, RATE = 30 };

static int device = -1, queued[BUFFERS], waiting, frames;

static int opened(const char *path) {
    if (strcmp(path, "/dev/video7")) return 0;
    device = memfd_create("camera", 0);
    waiting = frames = 0;
    return ftruncate(device, BUFFERS * PAGES) == 0;
}

/* Both names of the same call: a program is compiled for one of them. */
#define OPEN(name)                                                                 \
    int name(const char *path, int flags, ...) {                                   \
        va_list rest;                                                              \
        va_start(rest, flags);                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;    \
        va_end(rest);                                                              \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);             \
        return opened(path) ? device : real(path, flags, mode);                    \
    }
OPEN(open)
OPEN(open64)

static int fail(int error) {
    errno = error;
    return -1;
}

static int expose(struct v4l2_buffer *buffer) {
    const char *limit = getenv("CAMERA_FRAMES");
    if (limit && frames >= atoi(limit)) return fail(ENODEV);
    if (!waiting) return fail(EAGAIN);
    nanosleep(&(struct timespec){0, 1000000000 / RATE}, NULL);
    uint8_t image[SIZE];
    for (int i = 0; i < SIZE; i += 4) memcpy(image + i, (uint8_t[]){60 + frames, 90, 60 + frames, 240}, 4); /* Y U Y V */
    int index = queued[0];
    memmove(queued, queued + 1, --waiting * sizeof *queued);
    if (pwrite(device, image, SIZE, (off_t)index * PAGES) != SIZE) return fail(EIO);
    *buffer = (struct v4l2_buffer){.index = index, .type = buffer->type, .memory = buffer->memory, .bytesused = SIZE,
                                   .flags = V4L2_BUF_FLAG_MAPPED, .sequence = frames++, .length = SIZE};
    return 0;
}

static int answer(unsigned long request, void *argument) {
    struct v4l2_capability *able = argument;
    struct v4l2_format *format = argument;
    struct v4l2_requestbuffers *wanted = argument;
    struct v4l2_buffer *buffer = argument;
    struct v4l2_streamparm *rate = argument;
    switch (request) {
    case VIDIOC_QUERYCAP:
        *able = (struct v4l2_capability){.driver = "preloaded", .card = "test camera",
                                         .capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING};
        return 0;
    case VIDIOC_G_FMT:
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT: /* as drivers do: what it can do instead of what was asked */
        format->fmt.pix = (struct v4l2_pix_format){.width = WIDTH, .height = HEIGHT, .pixelformat = V4L2_PIX_FMT_YUYV,
                                                   .field = V4L2_FIELD_NONE, .bytesperline = WIDTH * 2, .sizeimage = SIZE};
        return 0;
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM:
        rate->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
        rate->parm.capture.timeperframe = (struct v4l2_fract){1, RATE};
        return 0;
    case VIDIOC_REQBUFS:
        wanted->count = wanted->count < BUFFERS ? wanted->count : BUFFERS;
        return 0;
    case VIDIOC_QUERYBUF:
        if (buffer->index >= BUFFERS) return fail(EINVAL);
        buffer->length = SIZE;
        buffer->m.offset = buffer->index * PAGES;
        return 0;
    case VIDIOC_QBUF:
        if (buffer->index >= BUFFERS || waiting == BUFFERS) return fail(EINVAL);
        queued[waiting++] = buffer->index;
        return 0;
    case VIDIOC_DQBUF:
        return expose(buffer);
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
        return 0;
    default:
        return fail(EINVAL);
    }
}

int ioctl(int file, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    return file == device && device >= 0 ? answer(request, argument) : real(file, request, argument);
}
