"""How do values travel between ranks? As bytes that say what they are, and make nobody import or call anything.

Ranks' traffic is plain: whoever reaches a connection can put bytes into it. Pickle would run what these name. Here a
byte says the kind of each value, lengths come before what they count, and what is read is one of the types below, of
values.py's table, or of a class that the reading rank has itself (vocabulary.py).

| kind | then |
|---|---|
| `N` `T` `F` | None, True, False |
| `i` `f` `c` | an int: length, two's complement, little-endian; a float: 8 bytes; a complex: 16 |
| `s` `b` `B` | str (UTF-8, surrogates passed), bytes, bytearray: length, bytes |
| `t` `l` `d` | tuple, list, dict: number, items (of a dict: key, value) |
| `z` `y` `x` | `torch.Size`, dtype, device |
| `p` `a` `D` | a place of a skeleton (tree.py), an array's, a tensor with its bytes |
| `v` | one of values.py: its name, a dict of parts |
| `o` `e` `g` | an object, an enum's member, a class or function: name; of the first two: content (and attributes) |
| `r` | what came before: its number, counted over all from `B` on in order of their beginning |

Numbers and lengths are in base 128, lowest first, the top bit of a byte says that another one follows. Whatever is not
so is a `CommFault`. Nothing is reserved before as many bytes are there, and what is referred to counts each time.
"""

from __future__ import annotations

from drivetrain.wire.read import load, load_skeleton
from drivetrain.wire.vocabulary import Vocabulary
from drivetrain.wire.write import dump, dump_skeleton

__all__ = ["Vocabulary", "dump", "dump_skeleton", "load", "load_skeleton"]
