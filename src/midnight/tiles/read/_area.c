/* Averages of an image over squares whose side is no whole number of px: the compiled twin of tiles/read/area.py, with the
 * same 16-bit arithmetic and so the same pixels. Levels are held as level * 2^8, weights as weight * 2^16; the upper
 * half of their product is level * weight * 2^8, rounded down.
 *
 * Weighted sums of whole rows are what vector units do best. So eight rows are averaged from the image's rows, turned
 * on their side, averaged in the same way, and turned back. */
#include "../_native.h"

/* Rows that are averaged at once, rows and columns that are turned at once. */
enum { LANES = 32, BLOCK = 8, CHANNELS = 3 };
typedef uint16_t Eight __attribute__((vector_size(16)));
typedef uint8_t Narrow __attribute__((vector_size(8)));

/* See midnight_area. */
typedef struct {
    const int32_t *first;
    const uint16_t *weights;
    int taps, size;
    uint16_t start;
} Map;

INLINE int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

INLINE uint16_t part(uint16_t level, uint16_t weight) { return (uint16_t)((uint32_t)level * weight >> 16); }

/* The average of rows that is number y of the result, of `n` numbers each. */
VECTORIZED static void sum_rows(const uint8_t *image, ptrdiff_t stride, const Map *map, int y, int n,
                                uint16_t *restrict sums) {
    for (int i = 0; i < n; i++) sums[i] = map->start;
    for (int k = 0; k < map->taps; k++) {
        const uint8_t *restrict row = image + (map->first[y] + k) * stride;
        uint16_t weight = map->weights[y * map->taps + k];
        for (int i = 0; i < n; i++) sums[i] = (uint16_t)(sums[i] + part((uint16_t)(row[i] << 8), weight));
    }
}

/* Rows to columns. */
INLINE void turn(Eight *x) {
    Eight a[BLOCK], b[BLOCK];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = SHUFFLE(x[i], x[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        a[2 * i + 1] = SHUFFLE(x[i], x[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = SHUFFLE(a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        b[2 * i + 1] = SHUFFLE(a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 4; i++) {
        x[2 * i] = SHUFFLE(b[i], b[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        x[2 * i + 1] = SHUFFLE(b[i], b[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

/* One tap more of a number of all rows. */
INLINE void add_column(const uint16_t *restrict column, uint16_t weight, uint16_t *restrict sums) {
    for (int i = 0; i < LANES; i++) sums[i] = (uint16_t)(sums[i] + part(column[i], weight));
}

/* The sums of LANES rows with `pitch` between them, `across` numbers each, as columns of LANES numbers. */
VECTORIZED static void turn_sums(const uint16_t *sums, ptrdiff_t pitch, int across, uint16_t *columns) {
    for (int x = 0; x < across; x += BLOCK)
        for (int y = 0; y < LANES; y += BLOCK) {
            Eight block[BLOCK];
            for (int i = 0; i < BLOCK; i++) memcpy(&block[i], sums + (y + i) * pitch + x, sizeof *block);
            turn(block);
            for (int i = 0; i < BLOCK; i++) memcpy(columns + (x + i) * LANES + y, &block[i], sizeof *block);
        }
}

/* Averages of columns, `out` numbers and up to BLOCK - 1 more of each row. */
VECTORIZED static void average_columns(const uint16_t *columns, const Map *map, uint16_t *averages) {
    for (int x = 0; x < map->size; x++)
        for (int c = 0; c < CHANNELS; c++) {
            const uint16_t *column = columns + (CHANNELS * map->first[x] + c) * LANES, *weights = map->weights + x * map->taps;
            uint16_t *sums = averages + (CHANNELS * x + c) * LANES;
            for (int i = 0; i < LANES; i++) sums[i] = map->start;
            for (int k = 0; k < map->taps; k++) add_column(column + k * CHANNELS * LANES, weights[k], sums);
        }
}

VECTORIZED static void turn_back(const uint16_t *averages, int numbers, uint8_t **rows) {
    for (int x = 0; x < numbers; x += BLOCK)
        for (int y = 0; y < LANES; y += BLOCK) {
            Eight block[BLOCK];
            size_t count = (size_t)(numbers - x < BLOCK ? numbers - x : BLOCK);
            for (int i = 0; i < BLOCK; i++) memcpy(&block[i], averages + (x + i) * LANES + y, sizeof *block);
            turn(block);
            for (int i = 0; i < BLOCK; i++) {
                Narrow narrow = __builtin_convertvector((block[i] + 128) >> 8, Narrow);
                memcpy(rows[y + i] + x, &narrow, count);
            }
        }
}

/* Room that midnight_area needs, in bytes. */
int64_t midnight_area_room(int64_t across, int64_t size) {
    return 2 * LANES * (2 * padded(CHANNELS * across) + padded(CHANNELS * size)) + padded(CHANNELS * size) + 64;
}

/* image: uint8 [down, across, 3], its rows `stride` bytes apart.
 * first: int32 [size], the first px of each average; weights: uint16 [size, taps], of it and the following ones.
 * start: what each sum begins with, for rounding.
 * room: see above. out: uint8 [size, size, 3]. */
void midnight_area(const uint8_t *image, int64_t stride, int64_t across, const int32_t *first, const uint16_t *weights,
                   int64_t taps, int64_t start, int64_t size, uint8_t *room, uint8_t *out) {
    const Map map = {first, weights, (int)taps, (int)size, (uint16_t)start};
    int numbers = CHANNELS * (int)across, written = CHANNELS * (int)size;
    ptrdiff_t pitch = padded(numbers);
    uint16_t *columns = (uint16_t *)(room + ((64 - ((uintptr_t)room & 63)) & 63));
    uint16_t *sums = columns + LANES * pitch, *averages = sums + LANES * pitch;
    uint8_t *spare = (uint8_t *)(averages + LANES * padded(written)), *rows[LANES];
    for (int top = 0; top < size; top += LANES) {
        for (int r = 0; r < LANES; r++) {
            rows[r] = top + r < size ? out + (top + r) * written : spare;
            if (top + r < size) sum_rows(image, stride, &map, top + r, numbers, sums + r * pitch);
        }
        turn_sums(sums, pitch, numbers, columns);
        average_columns(columns, &map, averages);
        turn_back(averages, written, rows);
    }
}
