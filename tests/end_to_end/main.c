/* Runs a compiled library from C: reads in_I.bin, writes out_I.bin. Compile with -DLIBRARY=name -DMACRO=NAME -DHEADER='"name.h"'.
   Runs twice, on an arena of 0xff bytes (NaNs) and on what the first run left, and expects equal outputs. */
#include HEADER

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define INPUTS CAT(MACRO, _INPUTS)
#define OUTPUTS CAT(MACRO, _OUTPUTS)

static void *allocate(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (!p)
        exit(10);
    memset(p, 0xff, bytes);
    return p;
}

static void transfer(const char *stem, int index, void *data, size_t bytes, int writing)
{
    char path[64];
    snprintf(path, sizeof path, "%s_%d.bin", stem, index);
    FILE *file = fopen(path, writing ? "wb" : "rb");
    if (!file || (writing ? fwrite(data, 1, bytes, file) : fread(data, 1, bytes, file)) != bytes || fclose(file))
        exit(11);
}

int main(void)
{
    const void *inputs[INPUTS + 1];
    void *first[OUTPUTS], *second[OUTPUTS];
    for (int i = 0; i < INPUTS; i++) {
        void *data = malloc(CAT(LIBRARY, _input_info)[i].bytes + 1);
        transfer("in", i, data, CAT(LIBRARY, _input_info)[i].bytes, 0);
        inputs[i] = data;
    }
    for (int i = 0; i < OUTPUTS; i++) {
        const size_t bytes = CAT(LIBRARY, _output_info)[i].bytes;
        first[i] = malloc(bytes + 1);
        second[i] = malloc(bytes + 1);
        memset(second[i], 0x55, bytes);
    }
    const void *weights = NULL;
#ifdef WEIGHTS
    void *read = allocate(CAT(MACRO, _WEIGHTS_BYTES));
    FILE *file = fopen(WEIGHTS, "rb");
    if (!file || fread(read, 1, CAT(MACRO, _WEIGHTS_BYTES), file) != CAT(MACRO, _WEIGHTS_BYTES) || fclose(file))
        return 12;
    weights = read;
#endif
    void *arena = allocate(CAT(MACRO, _ARENA_BYTES));
    struct CAT(LIBRARY, _inputs) in;
    struct CAT(LIBRARY, _outputs) out;
    memcpy(&in, inputs, sizeof in < sizeof inputs ? sizeof in : sizeof inputs);
    memcpy(&out, first, sizeof out);
    int status = CAT(LIBRARY, _run)(&in, &out, weights, arena);
    memcpy(&out, second, sizeof out);
    status |= CAT(LIBRARY, _run)(&in, &out, weights, arena);
    if (status)
        return 20 + status;
    for (int i = 0; i < OUTPUTS; i++) {
        const size_t bytes = CAT(LIBRARY, _output_info)[i].bytes;
        if (memcmp(first[i], second[i], bytes))
            return 30;
        transfer("out", i, first[i], bytes, 1);
        free(first[i]);
        free(second[i]);
    }
    for (int i = 0; i < INPUTS; i++)
        free((void *)inputs[i]);
    free(arena);
#ifdef WEIGHTS
    free(read);
#endif
    return 0;
}
