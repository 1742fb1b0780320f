"""Models of Llama's kind, as Hugging Face and llama.cpp write them: names, and the order of rows.

llama.cpp turns neighbouring coordinates of a head by one angle, Hugging Face coordinates that lie
half a head apart. So llama.cpp's files hold the rows of W for queries and keys in another order,
the two halves of each head interleaved; and what is added to W must be in that order, too.
"""

LAYERS = {  # of a block: Hugging Face's name, and llama.cpp's
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
TURNED = ("attn_q", "attn_k")  # whose rows llama.cpp holds in another order


def interleaved(rows, heads):
    """Rows (d_out, ...) in Hugging Face's order -> in llama.cpp's.

    A head of six rows 0 1 2 3 4 5 becomes 0 3 1 4 2 5. Arrays of NumPy and tensors of PyTorch.
    """
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def in_halves(rows, heads):
    """Rows (d_out, ...) in llama.cpp's order -> in Hugging Face's; it undoes `interleaved`."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
