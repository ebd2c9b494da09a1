/* Batch norm in training, with the addition and the ReLU behind it, forward and backward. Built by kernel.py.
 *
 * Tensors are channels-last: one run of numbers, in which number i belongs to channel i % channels. They are taken in
 * rows of `lanes` numbers, a multiple of the channels, so that few channels fill vector registers as well as many.
 * Sums are of single precision inside a block of rows and of double precision beyond it. Nothing is reordered and
 * nothing contracted (-ffp-contract=off): every compiler gives the same bits.
 */
#include <math.h>
#include <string.h>

#define MOST_LANES 2048
#define BLOCK_ROWS 64

/* Which numbers of a row exist: the last row is short, and empty where the rows come out even. */
static long width_of(long row, long numbers, long lanes) {
    long left = numbers - row * lanes;
    return left < lanes ? left : lanes;
}

static void add_block(float *restrict sums, double *restrict totals, long lanes) {
    for (long j = 0; j < lanes; j++) totals[j] += sums[j];
    memset(sums, 0, sizeof(float) * lanes);
}

static double channel_total(const double *totals, long channel, long channels, long lanes) {
    double total = 0;
    for (long j = channel; j < lanes; j += channels) total += totals[j];
    return total;
}

/* Mean and variance of each channel, about the first number of each lane, so that large means cancel nothing. */
static void moments(const float *restrict x, long numbers, long channels, long lanes, double *mean, double *variance) {
    float origin[MOST_LANES], sum[MOST_LANES] = {0}, square[MOST_LANES] = {0};
    double sums[MOST_LANES] = {0}, squares[MOST_LANES] = {0};
    double count = numbers / channels;
    long rows = (numbers + lanes - 1) / lanes;
    for (long j = 0; j < lanes; j++) origin[j] = x[j % channels];
    for (long row = 0; row < rows; row++) {
        const float *restrict here = x + row * lanes;
        long width = width_of(row, numbers, lanes);
        for (long j = 0; j < width; j++) {
            float off = here[j] - origin[j];
            sum[j] += off;
            square[j] += off * off;
        }
        if (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1) {
            add_block(sum, sums, lanes);
            add_block(square, squares, lanes);
        }
    }
    for (long c = 0; c < channels; c++) {
        double off = channel_total(sums, c, channels, lanes) / count;
        double spread = channel_total(squares, c, channels, lanes) / count - off * off;
        mean[c] = origin[c] + off;
        variance[c] = spread > 0 ? spread : 0;
    }
}

/* y = [ReLU of] gamma (x - mean) / std + beta [+ added]. Leaves scale and shift of each lane, and mean and 1 / std of
 * each channel, for the way back; moves the running statistics. `added` may be null. */
void batch_norm_forward(const float *restrict x, const float *restrict added, float *restrict y, long numbers,
                        long channels, long lanes, const float *gamma, const float *beta, double epsilon,
                        double momentum, float *running_mean, float *running_variance, float *restrict scale,
                        float *restrict shift, double *mean, double *inverse, int rectify) {
    double variance[MOST_LANES], count = numbers / channels;
    moments(x, numbers, channels, lanes, mean, variance);
    for (long c = 0; c < channels; c++) {
        inverse[c] = 1 / sqrt(variance[c] + epsilon);
        running_mean[c] += momentum * (mean[c] - running_mean[c]);
        running_variance[c] += momentum * (variance[c] * count / (count - 1) - running_variance[c]);
        for (long j = c; j < lanes; j += channels) {
            scale[j] = gamma[c] * inverse[c];
            shift[j] = beta[c] - mean[c] * gamma[c] * inverse[c];
        }
    }
    float least = rectify ? 0 : -INFINITY;
    for (long start = 0; start < numbers; start += lanes) {
        const float *restrict here = x + start;
        float *restrict out = y + start;
        long width = numbers - start < lanes ? numbers - start : lanes;
        if (added) {
            const float *restrict more = added + start;
            for (long j = 0; j < width; j++) {
                float value = here[j] * scale[j] + shift[j] + more[j];
                out[j] = value < least ? least : value;
            }
        } else {
            for (long j = 0; j < width; j++) {
                float value = here[j] * scale[j] + shift[j];
                out[j] = value < least ? least : value;
            }
        }
    }
}

/* What reaches the normalisation of one row: the gradient of y where the ReLU let y pass. Where something was added
 * that is read off y and kept (the sum's gradient), else off x again, which saves reading y. */
static void pass_relu(const float *restrict dy, const float *restrict x, const float *restrict y, float *restrict passed,
                      const float *restrict scale, const float *restrict shift, long width) {
    if (y)
        for (long j = 0; j < width; j++) passed[j] = y[j] > 0 ? dy[j] : 0;
    else
        for (long j = 0; j < width; j++) passed[j] = x[j] * scale[j] + shift[j] > 0 ? dy[j] : 0;
}

/* Gradients of x, gamma and beta, and of what was added (`dadded`, with `y` as the forward pass left it; both null
 * where nothing was added). */
void batch_norm_backward(const float *restrict dy, const float *restrict x, const float *restrict y,
                         float *restrict dadded, float *restrict dx, long numbers, long channels, long lanes,
                         const float *gamma, const float *restrict scale, const float *restrict shift,
                         const double *mean, const double *inverse, float *dgamma, float *dbeta, int rectify) {
    float centre[MOST_LANES], row_passed[MOST_LANES], sum[MOST_LANES] = {0}, product[MOST_LANES] = {0};
    double sums[MOST_LANES] = {0}, products[MOST_LANES] = {0};
    float slope[MOST_LANES], per_x[MOST_LANES], constant[MOST_LANES];
    double count = numbers / channels;
    long rows = (numbers + lanes - 1) / lanes;
    for (long j = 0; j < lanes; j++) centre[j] = mean[j % channels];
    for (long row = 0; row < rows; row++) {
        long start = row * lanes, width = width_of(row, numbers, lanes);
        const float *restrict here = x + start;
        float *kept = dadded ? dadded + start : row_passed;
        const float *passed = rectify ? kept : dy + start;
        if (rectify) pass_relu(dy + start, here, y ? y + start : 0, kept, scale, shift, width);
        for (long j = 0; j < width; j++) {
            sum[j] += passed[j];
            product[j] += passed[j] * (here[j] - centre[j]);
        }
        if (row % BLOCK_ROWS == BLOCK_ROWS - 1 || row == rows - 1) {
            add_block(sum, sums, lanes);
            add_block(product, products, lanes);
        }
    }
    for (long c = 0; c < channels; c++) {
        double total = channel_total(sums, c, channels, lanes), along = channel_total(products, c, channels, lanes);
        double steep = gamma[c] * inverse[c], bend = -steep * inverse[c] * inverse[c] * along / count;
        dbeta[c] = total;
        dgamma[c] = along * inverse[c];
        for (long j = c; j < lanes; j += channels) {
            slope[j] = steep;
            per_x[j] = bend;
            constant[j] = -steep * total / count - bend * mean[c];
        }
    }
    for (long start = 0; start < numbers; start += lanes) {
        const float *restrict here = x + start;
        float *restrict out = dx + start;
        long width = numbers - start < lanes ? numbers - start : lanes;
        const float *passed = dadded ? dadded + start : rectify ? row_passed : dy + start;
        if (rectify && !dadded) pass_relu(dy + start, here, 0, row_passed, scale, shift, width);
        for (long j = 0; j < width; j++) out[j] = slope[j] * passed[j] + (per_x[j] * here[j] + constant[j]);
    }
}
