"""Writes the model as a GGUF file, version 3."""
import struct

import vocabulary
from quant import format_of, packed

ALIGNMENT = 32
FORMAT_ID = {'F32': 0, 'Q4_0': 2, 'Q8_0': 8}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
SCALAR = {UINT32: '<I', INT32: '<i', FLOAT32: '<f', BOOL: '<?'}


def string(text):
    data = text.encode()
    return struct.pack('<Q', len(data)) + data


def scalar(kind, value):
    return string(value) if kind == STRING else struct.pack(SCALAR[kind], value)


def field(key, kind, value):
    """One metadata entry."""
    return string(key) + struct.pack('<I', kind) + scalar(kind, value)


def array(key, kind, values):
    """One metadata entry that is an array."""
    head = struct.pack('<IIQ', ARRAY, kind, len(values))
    return string(key) + head + b''.join(scalar(kind, value) for value in values)


def architecture_fields(config):
    counts = {
        'block_count': config.layers,
        'context_length': config.context,
        'embedding_length': config.hidden,
        'feed_forward_length': config.ffn_dense,
        'attention.head_count': config.heads,
        'attention.head_count_kv': config.kv_heads,
        'attention.key_length': config.head_size,
        'attention.value_length': config.head_size,
        'rope.dimension_count': config.rope_size,
        'expert_count': config.experts,
        'expert_used_count': config.experts_used,
        'expert_feed_forward_length': config.ffn_expert,
        'expert_shared_count': 1,
        'leading_dense_block_count': config.dense_layers,
        'expert_gating_func': 2,  # sigmoid
        'vocab_size': config.vocabulary,
    }
    reals = {
        'attention.layer_norm_rms_epsilon': config.epsilon,
        'rope.freq_base': config.rope_base,
        'expert_weights_scale': 1.0,
    }
    fields = [field(f'glm4moe.{key}', UINT32, value) for key, value in counts.items()]
    fields += [field(f'glm4moe.{key}', FLOAT32, value) for key, value in reals.items()]
    return fields + [field('glm4moe.expert_weights_norm', BOOL, True)]


def tokenizer_fields():
    texts, types, merges = vocabulary.tokens()
    return [
        field('tokenizer.ggml.model', STRING, 'gpt2'),
        field('tokenizer.ggml.pre', STRING, 'gpt-2'),
        array('tokenizer.ggml.tokens', STRING, texts),
        array('tokenizer.ggml.token_type', INT32, types),
        array('tokenizer.ggml.merges', STRING, merges),
        field('tokenizer.ggml.eos_token_id', UINT32, vocabulary.END),
        field('tokenizer.ggml.bos_token_id', UINT32, vocabulary.END),
        field('tokenizer.ggml.eot_token_id', UINT32, vocabulary.END),
        field('tokenizer.ggml.add_bos_token', BOOL, False),
        field('tokenizer.chat_template', STRING, vocabulary.CHAT_TEMPLATE),
    ]


def metadata(config):
    general = [
        field('general.architecture', STRING, 'glm4moe'),
        field('general.name', STRING, 'Tandem Pocket'),
        field('general.description', STRING, 'Very small mixture of experts: short stories and tasks with a checkable answer.'),
        field('general.license', STRING, 'mit'),
        field('general.file_type', UINT32, 2),  # mostly Q4_0
        field('general.quantization_version', UINT32, 2),
    ]
    return general + architecture_fields(config) + tokenizer_fields()


def padding(size):
    return b'\0' * (-size % ALIGNMENT)


def write(path, config, state):
    """Writes the file from the model's state_dict()."""
    table, body = b'', bytearray()
    for name, tensor in state.items():
        format_name = format_of(name, tensor)
        sizes = list(tensor.shape)[::-1]
        table += string(name) + struct.pack('<I', len(sizes)) + struct.pack(f'<{len(sizes)}Q', *sizes)
        table += struct.pack('<IQ', FORMAT_ID[format_name], len(body))
        body += packed(tensor, format_name)
        body += padding(len(body))
    fields = metadata(config)
    head = b'GGUF' + struct.pack('<IQQ', 3, len(state), len(fields)) + b''.join(fields) + table
    with open(path, 'wb') as file:
        file.write(head + padding(len(head)) + body)
