/* Cropped, resized, blurred and oriented views of a tile: the compiled twin of resample.render, with the same 16-bit
 * arithmetic and so the same pixels. The 10 views of a tile take 0.57 ms, by the twin 1.12, of 2.1 ms for the whole tile;
 * the twin is for machines without a C compiler. Pixels are held as level * 2^7, weights as weight * 2^14; the upper
 * half of their product is level * weight * 2^5. */
#include "../_native.h"

INLINE void widen_row(const uint8_t *restrict row, int n, int16_t *restrict out) {
    for (int i = 0; i < n; i++) out[i] = (int16_t)(row[i] << 7);
}

/* int16 [h, pitch] from uint8 [h, 3 w]. */
VECTORIZED static void widen(const uint8_t *image, int height, int width, int16_t *out, ptrdiff_t pitch) {
    for (int y = 0; y < height; y++) widen_row(image + y * 3 * width, 3 * width, out + y * pitch);
}

typedef int16_t Shorts16 __attribute__((vector_size(32)));
enum { BLOCK = 4 }; /* rows and columns of px that are turned at once */

/* Four px of a row, a fourth byte added to each; `n` bytes may be read. */
INLINE Four load_pixels(const uint8_t *at, ptrdiff_t n) {
    Bytes16 b = {0};
    memcpy(&b, at, n < 16 ? (size_t)n : 16);
    return (Four)SHUFFLE(b, b, 0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 0);
}

INLINE void store_column(Four pixels, int16_t *out) {
    Bytes16 b = (Bytes16)pixels;
    b = SHUFFLE(b, b, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0);
    Shorts16 wide = __builtin_convertvector(b, Shorts16) << 7;
    memcpy(out, &wide, 32);
}

INLINE void turn_block(const uint8_t *const *rows, ptrdiff_t x, ptrdiff_t n, int16_t *out, ptrdiff_t pitch) {
    Four a = load_pixels(rows[0] + x, n), b = load_pixels(rows[1] + x, n);
    Four c = load_pixels(rows[2] + x, n), d = load_pixels(rows[3] + x, n);
    Four ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    store_column(SHUFFLE(ab, cd, 0, 1, 4, 5), out);
    store_column(SHUFFLE(ab, cd, 2, 3, 6, 7), out + pitch);
    ab = SHUFFLE(a, b, 2, 6, 3, 7), cd = SHUFFLE(c, d, 2, 6, 3, 7);
    store_column(SHUFFLE(ab, cd, 0, 1, 4, 5), out + 2 * pitch);
    store_column(SHUFFLE(ab, cd, 2, 3, 6, 7), out + 3 * pitch);
}

/* The transposed image: int16 [w up to a multiple of BLOCK, pitch] from uint8 [h, 3 w]; up to 13 numbers more are
 * written to each row. */
VECTORIZED static void widen_turned(const uint8_t *image, ptrdiff_t row, int height, int width, int16_t *out,
                                    ptrdiff_t pitch) {
    for (int y = 0; y < height; y += BLOCK) {
        const uint8_t *rows[BLOCK];
        for (int i = 0; i < BLOCK; i++) rows[i] = image + (y + i < height ? y + i : height - 1) * row;
        int x = 0;
        for (; 3 * x + 16 <= 3 * width; x += BLOCK) turn_block(rows, 3 * x, 16, out + x * pitch + 3 * y, pitch);
        for (; x < width; x += BLOCK) turn_block(rows, 3 * x, 3 * (width - x), out + x * pitch + 3 * y, pitch);
    }
}

INLINE uint8_t narrow(int16_t value) {
    value = (int16_t)(value >> 5);
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

INLINE int16_t part(int16_t level, int16_t weight) { return (int16_t)((int32_t)level * weight >> 16); }

/* The first 4, 6 or 8 taps of a row, into `out`. */
INLINE void taps4(const int16_t *a, ptrdiff_t pitch, const int16_t *w, int16_t start, int n, uint8_t *restrict out) {
    const int16_t *b = a + pitch, *c = b + pitch, *d = c + pitch;
    int16_t wa = w[0], wb = w[1], wc = w[2], wd = w[3];
    for (int i = 0; i < n; i++)
        out[i] = narrow((int16_t)(start + part(a[i], wa) + part(b[i], wb) + part(c[i], wc) + part(d[i], wd)));
}

INLINE void taps6(const int16_t *a, ptrdiff_t pitch, const int16_t *w, int16_t start, int n, uint8_t *restrict out) {
    const int16_t *b = a + pitch, *c = b + pitch, *d = c + pitch, *e = d + pitch, *f = e + pitch;
    int16_t wa = w[0], wb = w[1], wc = w[2], wd = w[3], we = w[4], wf = w[5];
    for (int i = 0; i < n; i++)
        out[i] = narrow((int16_t)(start + part(a[i], wa) + part(b[i], wb) + part(c[i], wc) + part(d[i], wd) +
                                  part(e[i], we) + part(f[i], wf)));
}

INLINE void taps8(const int16_t *a, ptrdiff_t pitch, const int16_t *w, int16_t start, int n, uint8_t *restrict out) {
    const int16_t *b = a + pitch, *c = b + pitch, *d = c + pitch, *e = d + pitch, *f = e + pitch, *g = f + pitch;
    const int16_t *h = g + pitch;
    int16_t wa = w[0], wb = w[1], wc = w[2], wd = w[3], we = w[4], wf = w[5], wg = w[6], wh = w[7];
    for (int i = 0; i < n; i++)
        out[i] = narrow((int16_t)(start + part(a[i], wa) + part(b[i], wb) + part(c[i], wc) + part(d[i], wd) +
                                  part(e[i], we) + part(f[i], wf) + part(g[i], wg) + part(h[i], wh)));
}

/* Any number, four at a time, by way of sums. */
INLINE void many_taps(const int16_t *rows, ptrdiff_t pitch, const int16_t *w, int taps, int16_t start, int n,
                      int16_t *restrict sum, uint8_t *restrict out) {
    for (int i = 0; i < n; i++) sum[i] = start;
    for (int k = 0; k < taps; k += 4, w += 4, rows += 4 * pitch) {
        const int16_t *a = rows, *b = a + pitch, *c = b + pitch, *d = c + pitch;
        int16_t wa = w[0], wb = w[1], wc = w[2], wd = w[3];
        for (int i = 0; i < n; i++)
            sum[i] = (int16_t)(sum[i] + part(a[i], wa) + part(b[i], wb) + part(c[i], wc) + part(d[i], wd));
    }
    for (int i = 0; i < n; i++) out[i] = narrow(sum[i]);
}

/* A map of one axis: for each of `size` output rows the first source row, how many taps it has (up to the last that is
 * not 0), what its sum starts from, and `taps` weights. Beyond the source weights are 0, and any memory may stand. */
typedef struct {
    const int32_t *first;
    const int16_t *used, *start, *weights;
    int taps, size;
} Map;

VECTORIZED static void combine(const int16_t *source, ptrdiff_t pitch, int n, Map map, int flip, int16_t *sum,
                               uint8_t *out, ptrdiff_t row) {
    for (int i = 0; i < map.size; i++) {
        const int16_t *w = map.weights + i * map.taps, *rows = source + map.first[i] * pitch;
        uint8_t *target = out + (flip ? map.size - 1 - i : i) * row;
        if (map.used[i] <= 4) taps4(rows, pitch, w, map.start[i], n, target);
        else if (map.used[i] <= 6) taps6(rows, pitch, w, map.start[i], n, target);
        else if (map.used[i] <= 8) taps8(rows, pitch, w, map.start[i], n, target);
        else many_taps(rows, pitch, w, map.used[i], map.start[i], n, sum, target);
    }
}

/* One call of midnight_views: views of one size. Addresses are int64 for the side of Python.
 *
 * tile: uint8 [height, width, 3]. taps, largest: the largest number of taps and the largest size of all calls that share
 * the work space `room`. boxes: int64 [views, 4], top, left, height, width in px. turned: uint8 [views, 3], first
 * transposed, then flipped top to bottom, then flipped left to right. maps: int64 [views, 2, 5] of what becomes the
 * output's columns and rows, from the box's edge on: the addresses in Map, and taps. out: uint8 [views, size, size, 3]. */
typedef struct {
    int64_t height, width, views, size, taps, largest, tile, boxes, turned, maps, out, room;
} Call;

static ptrdiff_t longest_side(const Call *call) {
    int64_t side = call->height > call->width ? call->height : call->width;
    return (call->largest > side ? call->largest : side) + BLOCK;
}

/* Bytes of work space for calls with this height, width, taps and largest size. */
int64_t midnight_views_room(const Call *call) {
    int64_t side = longest_side(call), pitch = 3 * side + 64;
    return 2 * pitch * (3 * side + 1 + call->taps) + pitch * side;
}

static void views_of_one_size(const Call *call, ptrdiff_t side, ptrdiff_t pitch) {
    const int64_t *boxes = (const int64_t *)(intptr_t)call->boxes, *maps = (const int64_t *)(intptr_t)call->maps;
    const uint8_t *turned = (const uint8_t *)(intptr_t)call->turned;
    uint8_t *out = (uint8_t *)(intptr_t)call->out;
    int size = (int)call->size;
    /* The tile, the transposed tile, a transposed half-resized view, sums; then bytes: a half-resized view. */
    int16_t *wide = (int16_t *)(intptr_t)call->room, *wide_turned = wide + pitch * side;
    int16_t *between = wide_turned + pitch * side, *sum = between + pitch * side;
    uint8_t *half = (uint8_t *)(sum + pitch * (1 + call->taps));
    for (int64_t v = 0; v < call->views; v++, boxes += 4, turned += 3, maps += 10, out += 3 * (ptrdiff_t)size * size) {
        Map two[2];
        for (int i = 0; i < 2; i++) {
            const int64_t *m = maps + 5 * i;
            two[i] = (Map){(const int32_t *)(intptr_t)m[0], (const int16_t *)(intptr_t)m[1],
                           (const int16_t *)(intptr_t)m[2], (const int16_t *)(intptr_t)m[3], (int)m[4], size};
        }
        /* What becomes the columns of the output is resized first. */
        int swap = !turned[0], broad = (int)boxes[3 - swap];
        const int16_t *source = (swap ? wide_turned : wide) + boxes[swap] * pitch + 3 * boxes[!swap];
        combine(source, pitch, (3 * broad + 31) / 32 * 32, two[0], turned[2], sum, half, pitch);
        widen_turned(half, pitch, size, broad, between, pitch);
        combine(between, pitch, 3 * size, two[1], turned[1], sum, out, 3 * size);
    }
}

/* Write the views of one tile that `count` calls with the same work space describe. */
void midnight_views(const Call *calls, int count) {
    ptrdiff_t side = longest_side(calls), pitch = 3 * side + 64;
    const uint8_t *tile = (const uint8_t *)(intptr_t)calls->tile;
    int height = (int)calls->height, width = (int)calls->width;
    int16_t *wide = (int16_t *)(intptr_t)calls->room;
    widen(tile, height, width, wide, pitch);
    widen_turned(tile, 3 * width, height, width, wide + pitch * side, pitch);
    for (int i = 0; i < count; i++) views_of_one_size(calls + i, side, pitch);
}
