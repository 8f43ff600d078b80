/* Whether enough px of a tile lie in ranges of hue, saturation and value: the compiled twin of hsv_filter._at_least, with
 * the same float32 arithmetic and so the same decisions. */
#include "_native.h"

enum { BLOCK = 1024 }; /* px between two looks at whether the outcome is certain */

/* How many of at most BLOCK px are in range; `limits` as made by hsv_filter._limits. */
VECTORIZED static int in_range(const uint8_t *restrict px, int count, const float *limits) {
    const float h0 = limits[0], h1 = limits[1], s0 = limits[2], s1 = limits[3], v0 = limits[4], v1 = limits[5];
    const float to_whole = 12582912.0f, turn = 180 << 12; /* hsv_filter._ROUND, _TURN */
    float red[BLOCK], green[BLOCK], blue[BLOCK];
    int total = 0;
    /* Apart first: compilers turn each loop into vectors, but not both in one. */
    for (int i = 0; i < count; i++) red[i] = px[3 * i], green[i] = px[3 * i + 1], blue[i] = px[3 * i + 2];
    for (int i = 0; i < count; i++) {
        float r = red[i], g = green[i], b = blue[i];
        float gb = g > b ? g : b, value = r > gb ? r : gb, lesser = g < b ? g : b, least = r < lesser ? r : lesser;
        float spread = value - least, if_red = g - b, if_green = b - r + spread + spread, if_blue = r - g + spread * 4;
        float other = value == g ? if_green : if_blue, sixth = value == r ? if_red : other;
        float wide = spread > 1 ? spread : 1, bright = value > 1 ? value : 1;
        float per_spread = ((float)(30 << 12) / wide + to_whole) - to_whole;
        float per_value = ((float)(255 << 12) / bright + to_whole) - to_whole;
        float hue = sixth * per_spread + 2048, turned = hue + turn, saturation = spread * per_value;
        hue = hue < 0 ? turned : hue;
        total += (hue >= h0) & (hue <= h1) & (saturation >= s0) & (saturation <= s1) & (value >= v0) & (value <= v1);
    }
    return total;
}

/* Whether `needed` of `count` px, uint8 [count, 3] RGB, are in range, looking at no more of them than it takes. */
int midnight_hsv_at_least(const uint8_t *pixels, int64_t count, const float *limits, int64_t needed) {
    int64_t found = 0;
    for (int64_t done = 0; done < count && found < needed && found + count - done >= needed; done += BLOCK)
        found += in_range(pixels + 3 * done, (int)(count - done < BLOCK ? count - done : BLOCK), limits);
    return found >= needed;
}
