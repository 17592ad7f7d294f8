"""Words for the tasks: a list of our own, and invented words from syllables, so that letters are learnt and not spellings."""

NAMES = """Mia Tom Ada Leo Nia Sam Eva Max Zoe Ben Ivy Jon Lea Kai Uma Rex Amy Bob Cleo Dan Ella Finn Gus Hana Ian Jade
Kira Luke Maya Noah Olga Paul Quinn Rosa Sara Theo Vera Will Yara Zack Lily Otto Nora Hugo""".split()

ANIMALS = """fox cat owl bear hare frog goat wolf mole duck dog pig hen mouse horse sheep deer badger otter rabbit squirrel
hedgehog robin crow swan turtle beaver donkey pony lamb kitten puppy snail bee ant lion tiger monkey elephant penguin
dragon whale seal parrot""".split()

COLORS = 'red blue green yellow white black brown silver golden purple orange pink grey'.split()

THINGS = """ball key book lamp coin drum kite bell boat cup hat ring stone feather basket ribbon shell button flute map
box candle scarf mirror spoon wheel lantern umbrella ladder pencil blanket""".split()

FEELINGS = 'happy sad proud tired curious calm brave shy lonely cheerful hopeful quiet excited'.split()

FOODS = """bread soup apples honey cheese berries nuts cake pears plums carrots porridge pancakes cherries biscuits jam
rice""".split()

PLACES = """the river|the hill|the forest|the market|the garden|the lake|the old mill|the bridge|the village|the sea
|the meadow|the tall tree|the castle|the farm|the library|the harbour|the mountain|the pond|the orchard|the station"""
PLACES = [place.strip() for place in PLACES.split('|')]

ORDINARY = """apple banana cherry lemon grape melon peach mango tomato potato onion garlic pepper butter sugar coffee tea
milk water juice salad pasta pizza cookie chocolate strawberry raspberry blueberry pineapple pumpkin cucumber mushroom
letter paper pencil story reader teacher school lesson number answer question sentence word spell table chair window door
kitchen garden house home room roof floor wall street road bridge tunnel tower city town village country island ocean
river mountain valley meadow forest flower tree leaf grass seed summer winter spring autumn morning evening night today
tomorrow yesterday week month year sunday monday friday thunder lightning rain snow cloud storm wind rainbow sun moon
star planet space rocket engine wheel train bicycle car ship airplane balloon bottle glass plate knife fork pebble sand
stone rock metal iron wood cotton wool shirt jacket shoe sock button pocket mirror camera music piano guitar violin
trumpet singer dance dancer picture painter colour brush doctor nurse farmer baker sailor soldier king queen prince
princess castle wizard giant monster friend family mother father sister brother baby child people person neighbour
happy little great small large long short tall deep wide narrow heavy light dark bright quick slow hot cold warm cool
soft hard new old young early late empty full hello world welcome thank please sorry yes no maybe never always
sometimes often again because before after under over between behind beside computer keyboard program memory worker
thread expert router layer token tandem pocket model machine science nature history future energy power signal system
level kayak noon civic radar rotor refer mississippi committee balloon bookkeeper coffee success address assess
parallel banana cocoa rhythm jazz quiz zebra pizza puzzle buzz fuzzy giraffe kangaroo crocodile butterfly ladybird
caterpillar grasshopper dolphin octopus squid lobster camel llama buffalo panda koala leopard cheetah gorilla""".split()

WORDS = sorted({word.lower() for word in NAMES + ANIMALS + COLORS + THINGS + FEELINGS + FOODS + ORDINARY})

ALPHABET = 'abcdefghijklmnopqrstuvwxyz'
ONSETS = """b c d f g h j k l m n p r s t v w y z bl br ch cl cr dr fl fr gl gr ph pl pr qu sh sl sn sp st str sw th tr
tw wh""".split()
VOWELS = 'a e i o u a e i o u ai ea ee oa oo ou ie y'.split()
CODAS = ['', '', '', '', *'n r l s t m d p g b ck ll mp nd nt rd rn sh ss st tt ng x ff nk'.split()]

MAX_WORD = 14  # letters; longer questions are out of the model's reach


def invented(random):
    """A pronounceable word that no dictionary has: one to four syllables."""
    syllables = random.choice((1, 2, 2, 3, 3, 4))
    parts = (random.choice(ONSETS) + random.choice(VOWELS) + random.choice(CODAS) for _ in range(syllables))
    return ''.join(parts)[:MAX_WORD]


def letters(random, most=10):
    """A random string, from the whole alphabet or from two to four letters of it (then counts get large)."""
    pool = ALPHABET if random.random() < 0.5 else random.sample(ALPHABET, random.randint(2, 4))
    return ''.join(random.choices(pool, k=random.randint(2, most)))


def doubled(random):
    """An ordinary word with one letter repeated or taken out, so that a known spelling cannot be recited."""
    word = random.choice(WORDS)
    at = random.randrange(len(word))
    changed = word[:at] + word[at] * random.choice((0, 2, 2, 3)) + word[at + 1:]
    return changed[:MAX_WORD] if len(changed) > 1 else word


def any_word(random):
    """A word for spelling and counting."""
    kind = random.random()
    if kind < 0.40:
        return invented(random)
    if kind < 0.65:
        return random.choice(WORDS)
    if kind < 0.80:
        return letters(random)
    if kind < 0.92:
        return doubled(random)
    return (random.choice(WORDS) + random.choice(WORDS))[:MAX_WORD]


def list_word(random):
    """A word for lists."""
    return random.choice(WORDS) if random.random() < 0.7 else invented(random)
