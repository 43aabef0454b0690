/* Owns the table made from ops.def. Constant; any thread. */
#include "graph/op_table.h"

static const op_row rows[OP_COUNT] = {
#define OP(id, name, min_in, max_in, max_out, in_place, shape, gradient, traits)                                       \
    [id] = {name, min_in, max_in, max_out, in_place, shape, gradient},
#include "graph/ops.def"
#undef OP
};

const op_row *op_table_row(op_id op)
{
    return &rows[op];
}

const char *op_name(op_id op)
{
    return op < OP_COUNT ? rows[op].name : "unknown";
}

const char *dtype_name(uint8_t type)
{
    static const char *const names[] = {[DTYPE_F32] = "f32", [DTYPE_F64] = "f64",   [DTYPE_I32] = "i32",
                                        [DTYPE_F16] = "f16", [DTYPE_BF16] = "bf16", [DTYPE_U8] = "u8"};
    return type <= DTYPE_U8 ? names[type] : "unknown";
}
