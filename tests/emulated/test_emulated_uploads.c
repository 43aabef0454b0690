/* Copies on streams of their own, on the emulated device: what waits for them, and what they wait for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "device_fixture.h"
#include "emulated.h"

typedef struct {
    float *memory, *seen, *pinned;
} lane_buffers;

static lane_buffers open_lane(backend *device)
{
    float values[COUNT];
    fill_counting(values, COUNT, 1);
    lane_buffers b = {.memory = device_floats(device, values, COUNT), .seen = device_floats(device, NULL, COUNT)};
    b.pinned = device->ops->alloc_pinned(device, sizeof values);
    assert_non_null(b.pinned);
    fill_counting(b.pinned, COUNT, 500);
    return b;
}

static void close_lane(backend *device, const lane_buffers *b)
{
    device->ops->free(device, b->memory);
    device->ops->free(device, b->seen);
    device->ops->free_pinned(device, b->pinned);
}

static void upload(backend *device, int lane, const lane_buffers *b)
{
    ok(device->ops->upload(device, lane, b->memory, b->pinned, COUNT * sizeof(float)));
}

static void await_upload(backend *device, int lane)
{
    for (bool done = false; !done;)
        ok(device->ops->upload_done(device, lane, &done));
}

static void look(backend *device, const lane_buffers *b)
{
    ok(device->ops->copy(device, b->seen, b->memory, COUNT * sizeof(float)));
}

static void launches_after_use_see_the_upload(void **state)
{
    backend *device = *state;
    lane_buffers b = open_lane(device);
    ok(device->ops->synchronize(device));
    upload(device, 1, &b);
    look(device, &b);
    expect_counting(device, b.seen, COUNT, 1); /* without upload_use nothing holds a launch back */
    ok(device->ops->upload_use(device, 1));
    look(device, &b);
    expect_counting(device, b.seen, COUNT, 500);
    close_lane(device, &b);
}

static void an_upload_waits_for_the_release(void **state)
{
    backend *device = *state;
    for (int lane = 0; lane < UPLOAD_LANES; lane++)
        for (int released = 0; released < 2; released++) {
            lane_buffers b = open_lane(device);
            look(device, &b);
            if (released)
                ok(device->ops->upload_release(device, lane));
            upload(device, lane, &b);
            await_upload(device, lane);
            fill_counting(b.pinned, COUNT, 9000); /* done: the host memory is free again */
            ok(device->ops->upload_use(device, lane));
            if (released)
                expect_counting(device, b.seen, COUNT, 1);
            expect_counting(device, b.memory, COUNT,
                            released ? 500 : 1); /* unreleased, the first write comes after it */
            close_lane(device, &b);
        }
}

static void lanes_are_apart(void **state)
{
    backend *device = *state;
    lane_buffers a = open_lane(device), b = open_lane(device);
    ok(device->ops->synchronize(device));
    fill_counting(b.pinned, COUNT, 700);
    upload(device, 0, &a);
    upload(device, 3, &b);
    ok(device->ops->upload_use(device, 0));
    look(device, &a);
    expect_counting(device, a.seen, COUNT, 500);
    look(device, &b);
    expect_counting(device, b.seen, COUNT, 1); /* not used yet */
    ok(device->ops->upload_use(device, 3));
    look(device, &b);
    expect_counting(device, b.seen, COUNT, 700);
    close_lane(device, &a);
    close_lane(device, &b);
}

static void synchronize_waits_for_uploads(void **state)
{
    backend *device = *state;
    lane_buffers b = open_lane(device);
    upload(device, 2, &b);
    ok(device->ops->synchronize(device));
    assert_int_equal(emulated_pending(), 0);
    close_lane(device, &b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_DEVICE(launches_after_use_see_the_upload),
        ON_DEVICE(an_upload_waits_for_the_release),
        ON_DEVICE(lanes_are_apart),
        ON_DEVICE(synchronize_waits_for_uploads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
