/* Draws the images of the synthetic set. Owns no state: an image is a pure function of (seed, split, index), so any
 * thread may call it. Shapes are signed distances in pixels (negative inside), which also gives their anti-aliased
 * edges. */
#include "io/data/synth.h"

#include "base/rng.h"

#include <math.h>
#include <stdbool.h>

enum { SIDE = SYNTH_SIDE, DISC = 0, RING, SQUARE, TRIANGLE, CROSS, STAR, CRESCENT, HORIZONTAL, VERTICAL, CHECKER };

static const float pi = 3.14159265F, middle = 0.5F * SIDE;

const char *synth_class_name(int32_t label)
{
    static const char *const names[SYNTH_CLASSES] = {
        "disc",    "ring", "square", "triangle", "cross", "star", "crescent", "horizontal_stripes", "vertical_stripes",
        "checker",
    };
    return label >= 0 && label < SYNTH_CLASSES ? names[label] : "none";
}

/* The image's own sequence of random numbers. */
typedef struct {
    uint64_t seed;
    uint32_t counter[4], block[4];
    int used;
} draws;

static float uniform(draws *d, float low, float high)
{
    if (d->used == 4) {
        rng_philox(d->seed, d->counter, d->block);
        d->counter[0]++;
        d->used = 0;
    }
    return low + (high - low) * (float)(d->block[d->used++] >> 8) * 0x1p-24F;
}

typedef struct {
    float rgb[3];
} colour;

typedef struct {
    int32_t shape;
    float x, y, radius, cos_angle, sin_angle, stretch;
    float period, phase; /* of the textures */
    bool round_patch;    /* outline of the textures: disc or square */
    colour fill, second, shade;
} figure;

static colour random_colour(draws *d)
{
    return (colour){{uniform(d, 0, 1), uniform(d, 0, 1), uniform(d, 0, 1)}};
}

/* A colour that can be told from `other`: what is too near goes to the far side of each channel. */
static colour contrasting_colour(draws *d, colour other)
{
    colour c = random_colour(d);
    float distance = 0;
    for (int i = 0; i < 3; i++)
        distance += fabsf(c.rgb[i] - other.rgb[i]);
    if (distance < 0.7F)
        for (int i = 0; i < 3; i++)
            c.rgb[i] = other.rgb[i] + (other.rgb[i] < 0.5F ? 1 : -1) * uniform(d, 0.25F, 0.5F);
    return c;
}

static float disc(float x, float y, float radius)
{
    return hypotf(x, y) - radius;
}

static float box(float x, float y, float half_width, float half_height)
{
    return fmaxf(fabsf(x) - half_width, fabsf(y) - half_height);
}

static float triangle(float x, float y, float radius)
{
    float side = 0.8660254F * fabsf(x) + 0.5F * y; /* both slanted edges at once, by symmetry */
    return fmaxf(side, -y) - 0.55F * radius;
}

/* Fold the plane into one tenth of the star; there the outline is one straight line from tip to notch. */
static float star(float x, float y, float radius)
{
    const float tenth = pi / 5, notch = 0.42F * radius;
    float angle = fabsf(remainderf(atan2f(y, x), 2 * tenth)), length = hypotf(x, y);
    float along_x = notch * cosf(tenth) - radius, along_y = notch * sinf(tenth), norm = hypotf(along_x, along_y);
    return ((length * cosf(angle) - radius) * along_y - length * sinf(angle) * along_x) / norm;
}

static float shape_distance(const figure *f, float x, float y)
{
    const float r = f->radius;
    switch (f->shape) {
    case DISC:
        return disc(x, y, r);
    case RING:
        return fabsf(disc(x, y, 0.78F * r)) - 0.22F * r;
    case SQUARE:
        return box(x, y, 0.85F * r, 0.85F * r);
    case TRIANGLE:
        return triangle(x, y, r);
    case CROSS:
        return fminf(box(x, y, r, 0.3F * r), box(x, y, 0.3F * r, r));
    case STAR:
        return star(x, y, 1.15F * r);
    case CRESCENT:
        return fmaxf(disc(x, y, r), -disc(x - 0.55F * r, y, 0.8F * r));
    default:
        return f->round_patch ? disc(x, y, 1.1F * r) : box(x, y, r, r);
    }
}

static float coverage(float distance)
{
    return fminf(fmaxf(0.5F - distance, 0), 1);
}

/* Share of stripe under a pixel at `t` across stripes of the given period, half of it covered. */
static float stripe(float t, float period)
{
    return coverage(fabsf(remainderf(t, period)) - period / 4);
}

/* 1 where the figure has its fill colour, 0 where its second one. */
static float texture(const figure *f, float x, float y)
{
    if (f->shape == HORIZONTAL)
        return stripe(y + f->phase, f->period);
    if (f->shape == VERTICAL)
        return stripe(x + f->phase, f->period);
    if (f->shape != CHECKER)
        return 1;
    float a = stripe(x + f->phase, 1.5F * f->period), b = stripe(y + f->phase, 1.5F * f->period);
    return a * b + (1 - a) * (1 - b);
}

static void blend(colour *under, colour over, float share)
{
    for (int i = 0; i < 3; i++)
        under->rgb[i] += share * (over.rgb[i] - under->rgb[i]);
}

static figure random_figure(draws *d, int32_t shape, colour background)
{
    figure f = {.shape = shape};
    bool stripes = shape == HORIZONTAL || shape == VERTICAL; /* their class is their direction, give or take */
    float angle = stripes ? uniform(d, -0.3F, 0.3F) : uniform(d, 0, 2 * pi);
    f.cos_angle = cosf(angle);
    f.sin_angle = sinf(angle);
    f.radius = uniform(d, 6, 12);
    f.stretch = uniform(d, 0.85F, 1.18F);
    f.x = middle + uniform(d, -1, 1) * (middle - f.radius);
    f.y = middle + uniform(d, -1, 1) * (middle - f.radius);
    f.period = uniform(d, 4, 6);
    f.phase = uniform(d, 0, f.period);
    f.round_patch = uniform(d, 0, 1) < 0.5F;
    f.fill = contrasting_colour(d, background);
    f.second = contrasting_colour(d, f.fill);
    f.shade = random_colour(d);
    return f;
}

static void draw_figure(const figure *f, colour image[SIDE][SIDE])
{
    for (int row = 0; row < SIDE; row++) {
        for (int column = 0; column < SIDE; column++) {
            float dx = (float)column + 0.5F - f->x, dy = (float)row + 0.5F - f->y;
            float x = (dx * f->cos_angle + dy * f->sin_angle) * f->stretch;
            float y = (dy * f->cos_angle - dx * f->sin_angle) / f->stretch;
            colour paint = f->second;
            blend(&paint, f->fill, texture(f, x, y));
            blend(&paint, f->shade, 0.15F * (1 + x / f->radius)); /* a soft shading from one side to the other */
            blend(&image[row][column], paint, coverage(shape_distance(f, x, y)));
        }
    }
}

static void draw_background(draws *d, colour background, colour image[SIDE][SIDE])
{
    colour other = random_colour(d);
    float angle = uniform(d, 0, 2 * pi), strength = uniform(d, 0, 0.4F);
    for (int row = 0; row < SIDE; row++) {
        for (int column = 0; column < SIDE; column++) {
            float along = ((float)column * cosf(angle) + (float)row * sinf(angle)) / SIDE;
            image[row][column] = background;
            blend(&image[row][column], other, strength * fabsf(along));
        }
    }
}

/* Small discs that belong to no class. */
static void draw_distractors(draws *d, float count, colour image[SIDE][SIDE])
{
    for (int i = 0; (float)i < count; i++) {
        figure blob = {.shape = DISC, .cos_angle = 1};
        blob.x = uniform(d, 0, SIDE);
        blob.y = uniform(d, 0, SIDE);
        blob.radius = uniform(d, 1, 2.8F);
        blob.stretch = uniform(d, 0.6F, 1.7F);
        blob.fill = blob.shade = random_colour(d);
        draw_figure(&blob, image);
    }
}

/* Adds noise (the sum of two uniform numbers: a triangle) and rounds to bytes. */
static void to_bytes(draws *d, colour image[SIDE][SIDE], uint8_t *planar)
{
    float noise = uniform(d, 0.03F, 0.18F);
    for (int channel = 0; channel < 3; channel++) {
        for (int row = 0; row < SIDE; row++) {
            for (int column = 0; column < SIDE; column++) {
                float value = image[row][column].rgb[channel];
                value += noise * (uniform(d, -0.5F, 0.5F) + uniform(d, -0.5F, 0.5F));
                *planar++ = (uint8_t)lrintf(255 * fminf(fmaxf(value, 0), 1));
            }
        }
    }
}

void synth_draw(uint64_t seed, uint32_t split, uint32_t index, uint8_t *planar)
{
    const uint64_t stream = rng_stream(RNG_SYNTHETIC, (uint64_t)split << 32 | index);
    draws d = {.seed = seed, .counter = {0, 0, (uint32_t)stream, (uint32_t)(stream >> 32)}, .used = 4};
    colour image[SIDE][SIDE];
    colour background = random_colour(&d);
    draw_background(&d, background, image);
    draw_distractors(&d, uniform(&d, 1, 5), image);
    figure f = random_figure(&d, (int32_t)(index % SYNTH_CLASSES), background);
    draw_figure(&f, image);
    draw_distractors(&d, uniform(&d, 0, 2), image);
    to_bytes(&d, image, planar);
}
