/* A box of a JPEG image at full, half or quarter size, without decoding the rest: the compiled part of
 * midnight.tiles.read.jpeg, called through ctypes. A window takes 0.89 ms, by libjpeg-turbo (simplejpeg) 1.46: reading
 * is the largest part of a tile's time, and this is what makes it twice as fast as its peers (benchmarks/tiles.py).
 *
 * Huffman codes before the box are skipped over (two at a time where both fit into the bits looked up), those after
 * it are not looked at, and the inverse DCT, upsampling and colour conversion are done for the box's blocks alone.
 * At full size the pixels equal libjpeg-turbo's bit for bit: the same integer DCT [Loeffler, Ligtenberg, Moschytz
 * 1989, with 13-bit constants], triangle upsampling and 16-bit colour matrix. At half and quarter size the inverse
 * DCT gives averages of 2x2 or 4x4 px, and a subsampled component just fewer of them.
 *
 * Averages are taken before colours are converted and clipped, which is the same only where little is clipped, and of
 * subsampled components as they are. Where colours come out far outside of what RGB can show, as of RGB that is labelled
 * YCbCr, and where it is RGB that is subsampled, these sizes are INEXACT.
 *
 * Baseline Huffman images of 8 bits with three components in one scan, sampled 1x1, 2x1 or 2x2. What libjpeg refuses
 * or warns of is refused here, too. Every index that depends on the data is bounded: damaged data give CORRUPT or wrong
 * pixels, never a read or write outside. */
#include "../_native.h"

enum { OK = 0, UNSUPPORTED = 1, CORRUPT = 2, INEXACT = 3 };
enum { LOOK = 12, SIZE = 1 << LOOK, END = 64, LONG = 128 };

/* By the next LOOK bits. entry: value << 16 | coefficients to advance << 8 | bits; with LONG the value's size instead
 * of the value, and the code's bits alone; 0 where the code is longer. skip: advance << 8 | bits with the value's.
 * twice: the same for two codes where both fit. built: these belong to the source, which may be an earlier image's;
 * defined: this image, or its file's tables, have the table. */
typedef struct {
    uint8_t source[272], built, defined;
    int32_t entry[SIZE];
    uint16_t skip[SIZE], twice[SIZE];
    int32_t limit[17], offset[17];
} Table;

typedef struct {
    int id, h, v, quant, dc, ac;
    int fx, fy;        /* averages of so many samples */
    uint8_t *plane;    /* samples of the MCUs around the box */
    ptrdiff_t pitch;
} Part;

typedef struct {
    Table tables[8];   /* 0-3 for DC, 4-7 for AC coefficients */
    int32_t quant[4][64];
    uint8_t quantized[4]; /* which of them are defined */
    Part parts[3];
    int frame, scan;   /* whether their headers were read */
    int rgb;           /* the image says of itself that it is RGB */
    int width, height, hmax, vmax, restart;
    uint8_t *room;     /* of the planes and two widened rows */
    size_t size;
} Decoder;

typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;     /* the next bit is the highest */
    int left;          /* bits that are there */
    int missing;       /* of them, made-up ones: the data were at their end, or at a marker */
} Reader;

static const uint8_t NATURAL[64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

/* ---- headers ---- */

INLINE int extend(int bits, int size) { return size > 0 && bits < 1 << (size - 1) ? bits - (1 << size) + 1 : bits; }

static int build(Table *t, int ac) {
    static const int RUN_OF_16 = 0xF0;
    uint8_t length_of[SIZE];
    int code = 0, number = 0;
    memset(t->entry, 0, sizeof t->entry);
    memset(t->skip, 0, sizeof t->skip);
    memset(length_of, 0, sizeof length_of);
    for (int length = 1; length <= 16; length++) {
        t->offset[length] = number - code;
        for (int n = 0; n < t->source[length - 1]; n++, code++, number++) {
            int symbol = t->source[16 + number], run = ac ? symbol >> 4 : 0, size = symbol & 15;
            int advance = ac && size == 0 ? (symbol == RUN_OF_16 ? 16 : END) : run + 1;
            /* No code is all ones. */
            if (code + 1 >= 1 << length || (!ac && symbol > 15)) return CORRUPT;
            if (length > LOOK) continue;
            int left = LOOK - length;
            for (int suffix = 0; suffix < 1 << left; suffix++) {
                int place = (code << left) + suffix, fits = size <= left;
                int value = fits ? extend(suffix >> (left - size), size) : size;
                length_of[place] = (uint8_t)length;
                t->skip[place] = (uint16_t)(advance << 8 | (length + size));
                t->entry[place] = (int32_t)((uint32_t)value << 16) | advance << 8 | (fits ? length + size : LONG | length);
            }
        }
        t->limit[length] = code;
        code <<= 1;
    }
    for (int place = 0; place < SIZE; place++) {
        int one = t->skip[place], used = one & 255;
        t->twice[place] = (uint16_t)one;
        if (!one || used >= LOOK || one >> 8 >= END) continue;
        int after = (place << used) & (SIZE - 1), two = t->skip[after];
        if (two && length_of[after] <= LOOK - used)
            t->twice[place] = (uint16_t)(((one >> 8) + (two >> 8)) << 8 | (used + (two & 255)));
    }
    t->built = 1;
    return OK;
}

static int read_huffman(Decoder *d, const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        int total = 0, class = *at >> 4, number = *at & 15;
        if (end - at < 17) return CORRUPT;
        if (class > 1 || number > 3) return CORRUPT;
        for (int i = 1; i <= 16; i++) total += at[i];
        if (total > 256 || end - at < 17 + total) return CORRUPT;
        Table *t = &d->tables[4 * class + number];
        /* Most files repeat the same tables in each tile: they are built once. */
        if (!t->built || memcmp(t->source, at + 1, 16 + (size_t)total)) {
            t->built = 0;
            memcpy(t->source, at + 1, 16 + (size_t)total);
            if (build(t, class)) return CORRUPT;
        }
        t->defined = 1;
        at += 17 + total;
    }
    return OK;
}

static int read_quantization(Decoder *d, const uint8_t *at, const uint8_t *end) {
    for (; at < end; at += 65) {
        if (*at > 3) return UNSUPPORTED;
        if (end - at < 65) return CORRUPT;
        for (int k = 0; k < 64; k++) d->quant[*at][k] = at[1 + k];
        d->quantized[*at] = 1;
    }
    return OK;
}

static int read_frame(Decoder *d, const uint8_t *at, const uint8_t *end) {
    if (d->frame || end - at < 6 || end - at != 6 + 3 * at[5]) return CORRUPT;
    if (at[0] != 8 || at[5] != 3) return UNSUPPORTED;
    d->height = at[1] << 8 | at[2];
    d->width = at[3] << 8 | at[4];
    d->frame = 1;
    d->hmax = d->vmax = 1;
    for (int c = 0; c < 3; c++) {
        const uint8_t *fact = at + 6 + 3 * c;
        Part *p = &d->parts[c];
        p->id = fact[0];
        p->h = fact[1] >> 4;
        p->v = fact[1] & 15;
        p->quant = fact[2];
        if (p->quant > 3) return CORRUPT;
        if (p->h < 1 || p->h > 2 || p->v < 1 || p->v > p->h) return UNSUPPORTED;
        if (p->h > d->hmax) d->hmax = p->h;
        if (p->v > d->vmax) d->vmax = p->v;
    }
    for (int c = 0; c < 3; c++) /* no upsampling in one direction of full-width components */
        if (d->parts[c].h == d->hmax && d->parts[c].v != d->vmax) return UNSUPPORTED;
    d->rgb |= d->parts[0].id == 'R' && d->parts[1].id == 'G' && d->parts[2].id == 'B';
    return d->width && d->height ? OK : CORRUPT;
}

/* Adobe's marker says how colours are coded, by its last byte: 0 is not at all. */
static void read_adobe(Decoder *d, const uint8_t *at, const uint8_t *end) {
    if (end - at >= 12 && !memcmp(at, "Adobe", 5) && !at[11]) d->rgb = 1;
}

static int read_scan(Decoder *d, const uint8_t *at, const uint8_t *end) {
    static const uint8_t SEQUENTIAL[3] = {0, 63, 0};
    if (at >= end || *at != 3) return UNSUPPORTED;
    if (end - at != 4 + 2 * 3 || memcmp(end - 3, SEQUENTIAL, 3)) return CORRUPT;
    for (int c = 0; c < 3; c++) {
        const uint8_t *fact = at + 1 + 2 * c;
        if (fact[0] != d->parts[c].id) return UNSUPPORTED;
        int dc = fact[1] >> 4, ac = fact[1] & 15;
        if (dc > 3 || ac > 3 || !d->tables[dc].defined || !d->tables[4 + ac].defined) return CORRUPT;
        if (!d->quantized[d->parts[c].quant]) return CORRUPT;
        d->parts[c].dc = dc;
        d->parts[c].ac = 4 + ac;
    }
    d->scan = 1;
    return OK;
}

/* All segments from the start of an image to its coded data, or of a stream of tables to its end; *at is then behind
 * them. Of an earlier one only the tables are kept. */
static int read_headers(Decoder *d, const uint8_t **at, const uint8_t *end) {
    const uint8_t *p = *at;
    d->restart = d->frame = d->scan = d->rgb = 0;
    if (end - p < 4 || p[0] != 0xFF || p[1] != 0xD8) return CORRUPT;
    p += 2;
    while (end - p >= 2) {
        if (p[0] != 0xFF) return CORRUPT;
        int marker = p[1], status = OK;
        if (marker == 0xD9) {
            *at = p + 2;
            return OK;
        }
        if (marker == 0xFF) {
            p++;
            continue;
        }
        int size = end - p >= 4 ? p[2] << 8 | p[3] : 0;
        if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD8) || size < 2 || end - p < 2 + size) return CORRUPT;
        const uint8_t *first = p + 4, *last = p + 2 + size;
        if (marker == 0xC4) status = read_huffman(d, first, last);
        else if (marker == 0xDB) status = read_quantization(d, first, last);
        else if (marker == 0xC0 || marker == 0xC1) status = read_frame(d, first, last);
        else if (marker == 0xDD && size == 4) d->restart = first[0] << 8 | first[1];
        else if (marker == 0xEE) read_adobe(d, first, last);
        else if (marker == 0xDA) {
            *at = last;
            return d->frame ? read_scan(d, first, last) : CORRUPT;
        } else if (marker <= 0xCF || (marker >= 0xDC && marker <= 0xDF) || (marker >= 0xF0 && marker <= 0xFD))
            status = UNSUPPORTED;
        if (status) return status;
        p = last;
    }
    return CORRUPT;
}

/* Tables of an earlier image, of whatever file, are those of no other: only what was built from them is kept, in case
 * that the next one brings the same. `tables` is the stream that an image's file has for all of its images. */
static int start_image(Decoder *d, const uint8_t *tables, int64_t size) {
    for (int i = 0; i < 8; i++) d->tables[i].defined = 0;
    memset(d->quantized, 0, sizeof d->quantized);
    if (!size) return OK;
    int status = read_headers(d, &tables, tables + size);
    return status || !d->frame ? status : CORRUPT;
}

/* ---- entropy coding ---- */

/* At least 56 bits: two codes with their values have at most 54, but for damaged ones. Bits beyond `left` may be set
 * already; they are those of the next byte, which sets the same again. */
INLINE void refill(Reader *r) {
    if (r->end - r->at >= 8) {
        uint64_t word;
        memcpy(&word, r->at, 8);
        word = __builtin_bswap64(word);
        if (!((~word - 0x0101010101010101u) & word & 0x8080808080808080u)) { /* no 0xFF: no stuffing, no marker */
            r->bits |= word >> r->left;
            r->at += (63 - r->left) >> 3;
            r->left |= 56;
            return;
        }
    }
    while (r->left < 56) {
        uint64_t byte = 0;
        if (r->at < r->end && *r->at != 0xFF) byte = *r->at++;
        else if (r->end - r->at >= 2 && r->at[1] == 0) byte = 0xFF, r->at += 2;
        else r->missing += 8;
        r->bits |= byte << (56 - r->left);
        r->left += 8;
    }
}

INLINE unsigned peek(const Reader *r, int n) { return (unsigned)(r->bits >> (64 - n)); }
INLINE void drop(Reader *r, int n) { r->bits <<= n, r->left -= n; }

INLINE int receive(Reader *r, int size) {
    if (!size) return 0;
    int bits = (int)peek(r, size);
    drop(r, size);
    return extend(bits, size);
}

/* A code of more than LOOK bits at the beginning of `bits`: its length << 8 | its symbol, or 0 if there is none. By
 * value, so that callers can keep the reader in registers. */
static int long_code(const Table *t, uint64_t bits) {
    for (int length = LOOK + 1; length <= 16; length++) {
        int code = (int)(bits >> (64 - length));
        if (code < t->limit[length]) return length << 8 | t->source[16 + ((code + t->offset[length]) & 255)];
    }
    return 0;
}

INLINE int next_value(const Table *t, int ac, Reader *r, int *advance) {
    int32_t entry = t->entry[peek(r, LOOK)];
    if (!entry) {
        int found = long_code(t, r->bits), symbol = found & 255, size = symbol & 15;
        *advance = !found ? -1 : !ac ? 1 : size ? (symbol >> 4) + 1 : symbol == 0xF0 ? 16 : END;
        drop(r, found >> 8);
        return receive(r, size);
    }
    *advance = entry >> 8 & 255;
    drop(r, entry & 127);
    return entry & LONG ? receive(r, entry >> 16) : entry >> 16;
}

/* Pass over a block's AC coefficients. Up to k = 47 no code but an end-of-block ends the block, so that two codes may
 * be taken at once. */
INLINE int skip_block(const Table *t, Reader *reader) {
    Reader r = *reader;
    for (int k = 1, n = 0; k < 64; n ^= 1) {
        if (!n) refill(&r);
        unsigned entry = (k < 48 ? t->twice : t->skip)[peek(&r, LOOK)];
        int advance = (int)entry >> 8;
        if (entry) drop(&r, entry & 255);
        else {
            next_value(t, 1, &r, &advance);
            if (advance < 0) return CORRUPT;
        }
        k += advance;
    }
    *reader = r;
    return OK;
}

/* What the absolute coefficients of a block may sum up to. Beyond it libjpeg's 16-bit steps overflow, on each processor
 * in another way. Only damaged images, and black and white noise, come near it. */
enum { MAX_SUM = 5900 };

/* A block's AC coefficients, dequantized, to their natural places. Returns the last k, or -1. */
INLINE int read_block(const Table *t, const int32_t *quant, Reader *reader, int32_t *block) {
    Reader r = *reader;
    int k = 1, last = 0, sum = block[0] < 0 ? -block[0] : block[0];
    for (int n = 0; k < 64; n ^= 1) {
        int advance;
        if (!n) refill(&r);
        int value = next_value(t, 1, &r, &advance);
        if (advance < 0) return -1;
        k += advance;
        if (k > 64) {
            if (advance != END && value) return -1; /* a coefficient behind the last one */
            break;
        }
        last = k - 1;
        int coefficient = value * quant[last];
        sum += coefficient < 0 ? -coefficient : coefficient;
        block[NATURAL[last]] = coefficient;
    }
    *reader = r;
    return sum <= MAX_SUM ? last : -1;
}

/* ---- inverse DCT ---- */

typedef int32_t Eight __attribute__((vector_size(32)));

INLINE void butterfly(Eight *x) {
    Eight z1 = (x[2] + x[6]) * 4433, low = z1 - x[6] * 15137, high = z1 + x[2] * 6270;
    Eight plus = (x[0] + x[4]) << 13, minus = (x[0] - x[4]) << 13;
    Eight e0 = plus + high, e1 = minus + low, e2 = minus - low, e3 = plus - high;
    Eight z5 = (x[7] + x[3] + x[5] + x[1]) * 9633;
    Eight z2 = (x[5] + x[3]) * -20995, z3 = (x[7] + x[3]) * -16069 + z5, z4 = (x[5] + x[1]) * -3196 + z5;
    z1 = (x[7] + x[1]) * -7373;
    Eight o0 = x[7] * 2446 + z1 + z3, o1 = x[5] * 16819 + z2 + z4, o2 = x[3] * 25172 + z2 + z3, o3 = x[1] * 12299 + z1 + z4;
    x[0] = e0 + o3, x[1] = e1 + o2, x[2] = e2 + o1, x[3] = e3 + o0;
    x[7] = e0 - o3, x[6] = e1 - o2, x[5] = e2 - o1, x[4] = e3 - o0;
}

INLINE void transpose(Eight *x) {
    Eight a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = SHUFFLE(x[2 * i], x[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[2 * i + 1] = SHUFFLE(x[2 * i], x[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = SHUFFLE(a[4 * i + j], a[4 * i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            b[4 * i + 2 * j + 1] = SHUFFLE(a[4 * i + j], a[4 * i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        x[i] = SHUFFLE(b[i], b[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        x[i + 4] = SHUFFLE(b[i], b[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Two steps, which compilers know as a vector's maximum and minimum. */
INLINE uint8_t clamp(int32_t value) {
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* The same for vectors, whose comparisons give 0 or -1. */
#define CLAMP(x) (((x) | ((x) > 255)) & ~((x) >> 31) & 255)

/* One pass: averages of `factor` neighbours, rounded, >> shift. */
INLINE void pass(Eight *x, int factor, int shift) {
    butterfly(x);
    if (factor == 2)
        for (int i = 0; i < 4; i++) x[i] = x[2 * i] + x[2 * i + 1];
    if (factor == 4)
        for (int i = 0; i < 2; i++) x[i] = x[4 * i] + x[4 * i + 1] + x[4 * i + 2] + x[4 * i + 3];
    shift += factor / 2;
    for (int i = 0; i < 8 / factor; i++) x[i] = (x[i] + (1 << (shift - 1))) >> shift;
}

INLINE void inverse(const int32_t *block, int fy, int fx, uint8_t *out, ptrdiff_t pitch) {
    Eight x[8], left, right = {0};
    memcpy(x, block, sizeof x);
    pass(x, fy, 11); /* columns first, as libjpeg does: what is rounded in between decides the last bit */
    transpose(x);
    pass(x, fx, 18);
    for (int i = 0; i < 8 / fx; i++) x[i] += 128, x[i] = CLAMP(x[i]);
    /* x[i] holds pixel i of all rows: four of them make one number per row, whose bytes are in order. */
    left = x[0] | x[1] << 8;
    if (fx < 4) left |= x[2] << 16 | x[3] << 24;
    if (fx == 1) right = x[4] | x[5] << 8 | x[6] << 16 | x[7] << 24;
    Eight rows[2] = {SHUFFLE(left, right, 0, 8, 1, 9, 2, 10, 3, 11), SHUFFLE(left, right, 4, 12, 5, 13, 6, 14, 7, 15)};
    for (int y = 0; y < 8 / fy; y++) memcpy(out + y * pitch, (const char *)rows + 8 * y, (size_t)(8 / fx));
}

/* One pass of averages of two: the sums of neighbours in butterfly(), in which x[4] cancels out. */
#define HALVE(type, x, shift, y)                                                                             \
    do {                                                                                                     \
        type even = x[2] * 15136 - x[6] * 6271, mean = (x[0] << 14) + (1 << (shift));                        \
        type outer = x[1] * 20996 + x[3] * 7374 - x[5] * 4925 - x[7] * 4176;                                 \
        type inner = x[1] * 8697 - x[3] * 17798 + x[5] * 11894 - x[7] * 1730;                                \
        y[0] = (mean + even + outer) >> ((shift) + 1), y[3] = (mean + even - outer) >> ((shift) + 1);        \
        y[1] = (mean - even + inner) >> ((shift) + 1), y[2] = (mean - even - inner) >> ((shift) + 1);        \
    } while (0)

INLINE void split(Eight x, Four *low, Four *high) { memcpy(low, &x, 16), memcpy(high, (const char *)&x + 16, 16); }

/* What inverse(block, 2, 2, ...) gives, with half of the work. */
INLINE void half(const int32_t *block, uint8_t *out, ptrdiff_t pitch) {
    Eight x[8], y[4];
    Four columns[8], z[4];
    memcpy(x, block, sizeof x);
    HALVE(Eight, x, 11, y);
    Eight a = SHUFFLE(y[0], y[1], 0, 8, 1, 9, 4, 12, 5, 13), b = SHUFFLE(y[2], y[3], 0, 8, 1, 9, 4, 12, 5, 13);
    Eight c = SHUFFLE(y[0], y[1], 2, 10, 3, 11, 6, 14, 7, 15), d = SHUFFLE(y[2], y[3], 2, 10, 3, 11, 6, 14, 7, 15);
    split(SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13), &columns[0], &columns[4]);
    split(SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15), &columns[1], &columns[5]);
    split(SHUFFLE(c, d, 0, 1, 8, 9, 4, 5, 12, 13), &columns[2], &columns[6]);
    split(SHUFFLE(c, d, 2, 3, 10, 11, 6, 7, 14, 15), &columns[3], &columns[7]);
    HALVE(Four, columns, 18, z);
    for (int i = 0; i < 4; i++) z[i] += 128, z[i] = CLAMP(z[i]);
    Four rows = z[0] | z[1] << 8 | z[2] << 16 | z[3] << 24;
    for (int i = 0; i < 4; i++) memcpy(out + i * pitch, (const char *)&rows + 4 * i, 4);
}

/* Only the mean is not 0: the same two roundings, of one number. */
INLINE void flat(int32_t dc, int fy, int fx, uint8_t *out, ptrdiff_t pitch) {
    int32_t column = ((dc << 13) + (1 << 10)) >> 11, value = ((column << 13) + (1 << 17)) >> 18;
    for (int y = 0; y < 8 / fy; y++, out += pitch) memset(out, clamp(value + 128), (size_t)(8 / fx));
}

VECTORIZED static void put_block(const int32_t *block, int last, int fy, int fx, uint8_t *out, ptrdiff_t pitch) {
    if (!last) flat(block[0], fy, fx, out, pitch);
    else if (fy == 1 && fx == 1) inverse(block, 1, 1, out, pitch);
    else if (fy == 2 && fx == 2) half(block, out, pitch);
    else if (fy == 4 && fx == 4) inverse(block, 4, 4, out, pitch);
    else if (fy == 2) inverse(block, 2, 1, out, pitch);
    else inverse(block, 4, 2, out, pitch);
}

/* ---- one image ---- */

typedef struct { int left, right, top, bottom; } Mcus; /* first and last column and row */

/* Marker `number` mod 8 has to follow, with less than a byte of padding before it. */
static int restart(Reader *r, int number, int32_t *before) {
    int over = r->left - r->missing;
    if (over < 0) return CORRUPT;
    while (r->end - r->at >= 2 && r->at[0] == 0xFF && r->at[1] == 0xFF) r->at++;
    if (over >= 8 || r->end - r->at < 2 || r->at[0] != 0xFF || r->at[1] != (0xD0 | (number & 7))) return CORRUPT;
    *r = (Reader){r->at + 2, r->end, 0, 0, 0};
    memset(before, 0, 3 * sizeof *before);
    return OK;
}

INLINE int read_mcu(Decoder *d, Reader *r, int32_t *before, int keep, int column, int row) {
    for (int c = 0; c < 3; c++) {
        Part *p = &d->parts[c];
        const Table *dc = &d->tables[p->dc], *ac = &d->tables[p->ac];
        const int32_t *quant = d->quant[p->quant];
        for (int n = 0; n < p->h * p->v; n++) {
            int advance;
            refill(r);
            before[c] += next_value(dc, 0, r, &advance);
            if (advance < 0) return CORRUPT;
            if (!keep) {
                if (skip_block(ac, r)) return CORRUPT;
                continue;
            }
            _Alignas(32) int32_t block[64] = {0};
            int v = n / p->h, h = n % p->h;
            block[0] = before[c] * quant[0];
            int last = read_block(ac, quant, r, block);
            if (last < 0) return CORRUPT;
            uint8_t *out = p->plane + (row * p->v + v) * (8 / p->fy) * p->pitch + (column * p->h + h) * (8 / p->fx);
            put_block(block, last, p->fy, p->fx, out, p->pitch);
        }
    }
    return OK;
}

static int read_mcus(Decoder *d, const uint8_t *at, const uint8_t *end, Mcus part) {
    Reader r = {at, end, 0, 0, 0};
    int32_t before[3] = {0};
    int across = (d->width + 8 * d->hmax - 1) / (8 * d->hmax), until_restart = d->restart, restarts = 0;
    for (int row = 0; row <= part.bottom; row++)
        for (int column = 0; column < (row < part.bottom ? across : part.right + 1); column++) {
            if (d->restart && !until_restart--) {
                if (restart(&r, restarts++, before)) return CORRUPT;
                until_restart = d->restart - 1;
            }
            int keep = row >= part.top && column >= part.left && column <= part.right;
            int status = keep ? read_mcu(d, &r, before, 1, column - part.left, row - part.top)
                              : read_mcu(d, &r, before, 0, 0, 0);
            if (status) return status;
        }
    return r.missing > r.left ? CORRUPT : OK;
}

/* Loops over samples work on whole multiples of LANES, so that they have no slow remainder: behind each row as many bytes
 * may be read, and behind those that were upsampled twice as many written. */
enum { LANES = 32, PADDING = 2 * LANES };
INLINE int padded(int count) { return (count + LANES - 1) / LANES * LANES; }
INLINE size_t upsampled_pitch(Mcus part) { return (size_t)(part.right - part.left + 1) * 16 + PADDING; }

/* Room for the planes; factors by which each component is averaged. */
static int lay_out(Decoder *d, Mcus part, int reduce) {
    size_t total = 0, across = (size_t)(part.right - part.left + 1), down = (size_t)(part.bottom - part.top + 1);
    for (int c = 0; c < 3; c++) {
        Part *p = &d->parts[c];
        p->fx = reduce * p->h / d->hmax, p->fy = reduce * p->v / d->vmax;
        if (!p->fx) p->fx = 1;
        if (!p->fy) p->fy = 1;
        p->pitch = (ptrdiff_t)(across * (size_t)p->h * 8 / (size_t)p->fx);
        total += (size_t)p->pitch * down * (size_t)p->v * 8 / (size_t)p->fy;
    }
    total += 2 * upsampled_pitch(part) + PADDING;
    if (total > d->size) {
        free(d->room);
        d->room = malloc(total);
        d->size = d->room ? total : 0;
        if (!d->room) return CORRUPT;
    }
    uint8_t *at = d->room + 2 * upsampled_pitch(part);
    for (int c = 0; c < 3; c++) {
        Part *p = &d->parts[c];
        p->plane = at;
        at += (size_t)p->pitch * down * (size_t)p->v * 8 / (size_t)p->fy;
    }
    return OK;
}

enum { MAX_SIDE = 4096, WIDE = MAX_SIDE / 2 + PADDING };
typedef uint16_t __attribute__((may_alias)) Pair;

/* Triangle upsampling of samples first ... last of a row to twice the width: the nearer sample counts three times the
 * farther one, and beyond `end`, the image's last sample, the edge is repeated. `other` is the neighbouring row of one
 * that is upsampled in height too, else NULL. Up to PADDING bytes are written behind the last. */
VECTORIZED static void upsample(const uint8_t *here, const uint8_t *other, int first, int last, int end, uint8_t *out) {
    int16_t room[WIDE], *sums = room + 1; /* sums[i] belongs to sample first + i */
    int count = last - first + 1, whole = padded(count + 2);
    here += first - 1;
    if (other) {
        other += first - 1;
        for (int i = 0; i < whole; i++) room[i] = (int16_t)(3 * here[i] + other[i]);
    } else
        for (int i = 0; i < whole; i++) room[i] = (int16_t)(4 * here[i]);
    if (!first) sums[-1] = sums[0];
    if (last >= end) sums[count] = sums[count - 1];
    /* h2v1 has the rounding constants 1 and 2 of 4, h2v2 8 and 7 of 16. */
    int16_t before = other ? 8 : 4, after = other ? 7 : 8;
    Pair *pairs = (Pair *)(out + 2 * first); /* whose lower byte comes first */
    whole = padded(count);
    for (int i = 0; i < whole; i++) {
        int16_t three = (int16_t)(3 * sums[i]);
        uint16_t even = (uint16_t)(three + sums[i - 1] + before) >> 4, odd = (uint16_t)(three + sums[i + 1] + after) >> 4;
        pairs[i] = (uint16_t)(even | odd << 8);
    }
}

/* 16 px. */
INLINE void interleave(const uint8_t *red, const uint8_t *green, const uint8_t *blue, uint8_t *out) {
    Bytes16 r, g, b;
    memcpy(&r, red, 16), memcpy(&g, green, 16), memcpy(&b, blue, 16);
    Bytes16 rg = SHUFFLE(r, g, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    Bytes16 first = SHUFFLE(rg, b, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15);
    rg = SHUFFLE(r, g, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    Bytes16 second = SHUFFLE(rg, b, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15);
    rg = SHUFFLE(r, g, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    Bytes16 third = SHUFFLE(rg, b, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31);
    memcpy(out, &first, 16), memcpy(out + 16, &second, 16), memcpy(out + 32, &third, 16);
}

enum { STRIP = 128 };

/* (value * factor + 2^15) >> 16 in 16-bit steps. */
INLINE int16_t scaled(int16_t value, int16_t factor) {
    int16_t high = (int16_t)((int32_t)value * factor >> 16), low = (int16_t)((uint16_t)value * (uint16_t)factor);
    return (int16_t)(high - (low >> 15));
}

INLINE uint8_t clamp16(int16_t value) {
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

/* JFIF's matrix in 16-bit fixed point. Three plain rows first, interleaved after: compilers turn each into vectors. */
INLINE void strip_to_rgb(const uint8_t *restrict luma, const uint8_t *restrict blue, const uint8_t *restrict red,
                         int width, uint8_t *restrict out) {
    _Alignas(32) uint8_t r[STRIP], g[STRIP], b[STRIP];
    int whole = padded(width), x = 0;
    /* 91881 = 65536 + 26345, 116130 = 131072 - 14942 and 46802 = 65536 - 18734: so 16 bits do. */
    for (int i = 0; i < whole; i++) r[i] = clamp16((int16_t)(luma[i] + (red[i] - 128) + scaled(red[i] - 128, 26345)));
    for (int i = 0; i < whole; i++)
        b[i] = clamp16((int16_t)(luma[i] + 2 * (blue[i] - 128) + scaled(blue[i] - 128, -14942)));
    for (int i = 0; i < whole; i++) {
        int16_t u = (int16_t)(blue[i] - 128), v = (int16_t)(red[i] - 128);
        int16_t high = (int16_t)(((int32_t)u * -22554 >> 16) + ((int32_t)v * 18734 >> 16));
        uint16_t first = (uint16_t)(u * -22554), low = (uint16_t)(first + (uint16_t)(v * 18734));
        /* The carry of the lower halves, and that of adding a half. */
        int16_t carry = (int16_t)((low < first) + (low >> 15));
        g[i] = clamp16((int16_t)(luma[i] - v + high + carry));
    }
    for (; x + 16 <= width; x += 16) interleave(r + x, g + x, b + x, out + 3 * x);
    if (x < width) {
        uint8_t rest[48];
        interleave(r + x, g + x, b + x, rest);
        memcpy(out + 3 * x, rest, 3 * (size_t)(width - x));
    }
}

VECTORIZED static void to_rgb(const uint8_t *luma, const uint8_t *blue, const uint8_t *red, int width, uint8_t *out) {
    for (int x = 0; x < width; x += STRIP)
        strip_to_rgb(luma + x, blue + x, red + x, width - x < STRIP ? width - x : STRIP, out + 3 * x);
}

/* A component's row at the output's size; x, y relative to the planes' first pixel. */
static const uint8_t *component_row(const Decoder *d, int c, Mcus part, int reduce, int x, int y, int width) {
    const Part *p = &d->parts[c];
    if (reduce > 1 || p->h == d->hmax) return p->plane + y * p->pitch + x;
    int tall = p->v < d->vmax, row = tall ? y >> 1 : y, near = row + (y & 1 ? 1 : -1);
    /* Last samples of the image, relative to the plane's first: beyond them the edge is repeated. */
    int end_x = (d->width + 1) / 2 - 1 - part.left * 8, end_y = (d->height + 1) / 2 - 1 - part.top * 8;
    int last_x = (part.right - part.left + 1) * 8 - 1;
    if (end_x > last_x) end_x = last_x;
    if (near < 0) near = 0;
    if (near > end_y) near = end_y;
    uint8_t *out = d->room + (size_t)(c - 1) * upsampled_pitch(part);
    int last = (x + width - 1) >> 1;
    const uint8_t *other = tall ? p->plane + near * p->pitch : NULL;
    upsample(p->plane + row * p->pitch, other, x >> 1, last < end_x ? last : end_x, end_x, out);
    return out + x;
}

/* Levels beyond 0 and 255 to which rounding, coarse quantization and halved chroma take colours that were RGB: up to 29
 * on real tissue at quality 20, up to 25 from quality 50 on. RGB labelled YCbCr is 190 and more beyond. */
enum { BEYOND = 32 };
INLINE int beyond(int16_t value) { return (uint16_t)(value + BEYOND) > 255 + 2 * BEYOND; }

/* Of `count` px: bits of those whose colour lies so far outside of RGB that it makes a difference whether averages are
 * taken before clipping. */
INLINE void add_clipped(const uint8_t *luma, const uint8_t *blue, const uint8_t *red, int count, uint16_t *restrict any) {
    for (int i = 0; i < count; i++) {
        int16_t u = (int16_t)(blue[i] - 128), v = (int16_t)(red[i] - 128);
        int16_t r = (int16_t)(luma[i] + v + scaled(v, 26345)), b = (int16_t)(luma[i] + 2 * u + scaled(u, -14942));
        int16_t g = (int16_t)(luma[i] - v + scaled(v, 18734) + scaled(u, -22554));
        any[i] |= (uint16_t)(beyond(r) | beyond(g) | beyond(b));
    }
}

/* Whether there is any in a row; the last LANES px are looked at as a whole, some of them again. */
VECTORIZED static int clips(const uint8_t *luma, const uint8_t *blue, const uint8_t *red, int width) {
    uint16_t any[LANES] = {0}, all = 0;
    if (width < LANES) add_clipped(luma, blue, red, width, any);
    else
        for (int x = 0; x < width; x += LANES) {
            int at = x + LANES > width ? width - LANES : x;
            add_clipped(luma + at, blue + at, red + at, LANES, any);
        }
    for (int i = 0; i < LANES; i++) all |= any[i];
    return all;
}

static int assemble(const Decoder *d, Mcus part, const int *box, int reduce, int ycc, uint8_t *out, ptrdiff_t pitch) {
    int x = (box[0] - part.left * 8 * d->hmax) / reduce, y = (box[1] - part.top * 8 * d->vmax) / reduce;
    int width = box[2] / reduce, height = box[3] / reduce;
    for (int i = 0; i < height; i++, out += pitch) {
        const uint8_t *rows[3];
        for (int c = 0; c < 3; c++) rows[c] = component_row(d, c, part, reduce, x, y + i, width);
        if (ycc) {
            if (reduce > 1 && clips(rows[0], rows[1], rows[2], width)) return INEXACT;
            to_rgb(rows[0], rows[1], rows[2], width, out);
        } else
            for (int j = 0; j < width; j++)
                for (int c = 0; c < 3; c++) out[3 * j + c] = rows[c][j];
    }
    return OK;
}

/* Whether the image ends where it should: libjpeg does not show any of one that was cut short. */
static int has_end(const uint8_t *at, const uint8_t *end) {
    for (const uint8_t *p = end - 2; p >= at; p--)
        if (p[0] == 0xFF && p[1] == 0xD9) return 1;
    return 0;
}

static int decode_box(Decoder *d, const uint8_t *at, const uint8_t *end, const int *tile, const int *box, int reduce,
                      int ycc, uint8_t *out, ptrdiff_t pitch) {
    int status = read_headers(d, &at, end);
    if (status) return status;
    if (!d->scan || at >= end) return CORRUPT;
    if (!has_end(at, end)) return CORRUPT;
    if (reduce > 1 && (ycc ? d->rgb : d->hmax > 1)) return INEXACT;
    /* Of a few px libjpeg upsamples in another way. */
    if (d->width != tile[0] || d->height != tile[1] || d->width < 8 || d->height < 8 || d->width > MAX_SIDE) return UNSUPPORTED;
    /* Upsampling looks one sample of a subsampled component, two px, beyond the box. */
    int margin = reduce == 1 ? 2 : 0, mcu_width = 8 * d->hmax, mcu_height = 8 * d->vmax;
    int right = box[0] + box[2] + margin, bottom = box[1] + box[3] + margin;
    Mcus part = {box[0] > margin ? (box[0] - margin) / mcu_width : 0,
                 ((right < d->width ? right : d->width) - 1) / mcu_width,
                 box[1] > margin ? (box[1] - margin) / mcu_height : 0,
                 ((bottom < d->height ? bottom : d->height) - 1) / mcu_height};
    status = lay_out(d, part, reduce);
    if (!status) status = read_mcus(d, at, end, part);
    return status ? status : assemble(d, part, box, reduce, ycc, out, pitch);
}

/* ---- called from Python ---- */

void *midnight_jpeg_new(void) { return calloc(1, sizeof(Decoder)); }

void midnight_jpeg_free(void *decoder) {
    if (decoder) free(((Decoder *)decoder)->room);
    free(decoder);
}

/* A window of an image that is cut into tiles.
 *
 * data: the tiles' bytes; tile (r, c) is the spans[2 (r columns + c) + 1] bytes from spans[2 (r columns + c)] on.
 * geometry: rows and columns of tiles; a tile's width and height; the window's x, y, width, height in px from the
 * first tile's corner; reduce. All but the first two are multiples of the last.
 * tables: an abbreviated stream that all tiles share (TIFF's JPEGTables), of tables_size bytes, may be 0.
 * out: uint8 [height / reduce, width / reduce, 3]. */
int midnight_jpeg_window(void *decoder, const uint8_t *data, int64_t size, const int64_t *spans, const int *geometry,
                         const uint8_t *tables, int64_t tables_size, int ycc, uint8_t *out) {
    int rows = geometry[0], columns = geometry[1], reduce = geometry[8];
    const int *tile = geometry + 2, *window = geometry + 4;
    ptrdiff_t pitch = 3 * (ptrdiff_t)(window[2] / reduce);
    int status = OK;
    for (int n = 0; n < rows * columns && !status; n++) {
        int left = n % columns * tile[0], top = n / columns * tile[1];
        int x0 = window[0] > left ? window[0] : left, y0 = window[1] > top ? window[1] : top;
        int x1 = window[0] + window[2], y1 = window[1] + window[3];
        if (x1 > left + tile[0]) x1 = left + tile[0];
        if (y1 > top + tile[1]) y1 = top + tile[1];
        if (x0 >= x1 || y0 >= y1) continue;
        const int64_t *span = spans + 2 * n;
        if (span[0] < 0 || span[1] < 0 || span[0] > size || span[1] > size - span[0]) return CORRUPT;
        int box[4] = {x0 - left, y0 - top, x1 - x0, y1 - y0};
        uint8_t *corner = out + (y0 - window[1]) / reduce * pitch + 3 * ((x0 - window[0]) / reduce);
        status = start_image(decoder, tables, tables_size);
        if (!status)
            status = decode_box(decoder, data + span[0], data + span[0] + span[1], tile, box, reduce, ycc, corner, pitch);
    }
    return status;
}
