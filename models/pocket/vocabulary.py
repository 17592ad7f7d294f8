"""The vocabulary: the 256 bytes, and control tokens. As a byte-level BPE with no useful merges, any engine can read it."""
import numpy as np

BYTES = 256
# One merge of two bytes that never meet in UTF-8, since loaders expect a list of merges that is not empty.
MERGED = 256
USER, ASSISTANT, END = 257, 258, 259
CONTROL = {USER: '<|user|>', ASSISTANT: '<|assistant|>', END: '<|end|>'}
SIZE = 264

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{{ m['content'] }}<|end|>"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# The corpus writes the control tokens as the bytes 1, 2 and 3.
ID_OF_BYTE = np.arange(BYTES)
ID_OF_BYTE[1:4] = USER, ASSISTANT, END


def byte_characters():
    """The character that stands for each byte in a byte-level BPE vocabulary (the GPT-2 convention)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(BYTES) if byte not in shown]
    characters = {byte: chr(byte) for byte in shown}
    characters.update({byte: chr(BYTES + i) for i, byte in enumerate(hidden)})
    return [characters[byte] for byte in range(BYTES)]


def tokens():
    """(texts, types, merges) as the file stores them. Types: 1 normal, 3 control, 5 unused."""
    characters = byte_characters()
    texts = characters + [characters[254] + characters[255]]
    texts += [CONTROL.get(i, f'<|reserved_{i}|>') for i in range(len(texts), SIZE)]
    types = [3 if i in CONTROL else 5 if i > MERGED else 1 for i in range(SIZE)]
    return texts, types, [f'{characters[254]} {characters[255]}']
