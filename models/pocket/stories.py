"""Very short stories in plain English, told beat by beat, with the questions that each story can answer."""
from dataclasses import dataclass, field

from words import ANIMALS, COLORS, FEELINGS, FOODS, NAMES, PLACES, THINGS, invented


def with_article(noun):
    """'an owl', 'a fox'."""
    return ('an ' if noun[0] in 'aeiou' else 'a ') + noun


@dataclass
class Story:
    """A story's text, the facts it was told from, and the questions it answers as (question, answer)."""
    text: str
    hero: str
    animal: str
    friend: str
    friend_animal: str
    thing: str
    color: str
    place: str
    questions: list = field(default_factory=list)


def pick_names(random):
    """Two different names, now and then invented ones."""
    hero, friend = random.sample(NAMES, 2)
    if random.random() < 0.1:
        hero = invented(random)[:8].capitalize()
    if random.random() < 0.1:
        friend = invented(random)[:8].capitalize()
    return (hero, friend) if hero != friend else pick_names(random)


def pick_animals(random):
    """Two animals, now and then an invented one."""
    hero, friend = random.choice(ANIMALS), random.choice(ANIMALS)
    return (invented(random)[:8] if random.random() < 0.08 else hero), friend


def make_story(random):
    """One story and its questions."""
    hero, friend = pick_names(random)
    animal, friend_animal = pick_animals(random)
    home, place = random.sample(PLACES, 2)
    color, thing = random.choice(COLORS), random.choice(THINGS)
    mood, food, ending = random.choice(FEELINGS), random.choice(FOODS), random.choice(FEELINGS)
    item = with_article(f'{color} {thing}')
    say = random.choice
    beats = [
        say([
            f'Once upon a time there was {with_article(animal)} named {hero} who lived near {home}.',
            f'Once upon a time {with_article(animal)} called {hero} lived near {home}.',
            f'{hero} the {animal} lived near {home}.',
            f'Near {home} lived {with_article(animal)} called {hero}.',
        ]),
        say([f' One day {hero} found {item}.', f' One morning {hero} found {item} in the grass.',
             f' One evening {hero} found {item} under a stone.']),
        say([f' {hero} felt {mood} and walked to {place}.', f' So {hero} went to {place}, feeling {mood}.',
             f' Feeling {mood}, {hero} carried it to {place}.']),
        say([f' There {hero} met {friend} the {friend_animal}.',
             f' At {place} {hero} met {with_article(friend_animal)} named {friend}.']),
        say([f' "What a nice {thing}!" said {friend}.', f' "Is that your {thing}?" asked {friend}. "Yes," said {hero}.',
             f' {friend} looked at the {thing} and smiled.', f' "May I see the {thing}?" asked {friend}.',
             f' {friend} had lost that {thing} long ago, and {hero} gave it back.']),
    ]
    questions = [
        (say([f'Who lived near {home}?', f'Who found the {thing}?', f'Who found {item}?']), hero),
        (say([f'What colour was the {thing}?', f'What color was the {thing}?']), color),
        (f'Where did {hero} live?', f'near {home}'),
        (f'What did {hero} find?', item),
        (say([f'Where did {hero} go?', f'Where did {hero} meet {friend}?']), place),
        (f'Who did {hero} meet?', friend),
        (say([f'What animal was {friend}?', f'What kind of animal was {friend}?']), friend_animal),
        (say([f'What animal was {hero}?', f'What kind of animal was {hero}?']), animal),
    ]
    if random.random() < 0.8:
        beats.append(say([f' They shared some {food} and became friends.', f' They ate {food} together.',
                          f' {friend} gave {hero} some {food}, and they ate until evening.']))
        questions.append((say(['What did they eat?', f'What did {hero} eat?']), food))
    if random.random() < 0.7:
        beats.append(say([f' At the end of the day {hero} was {ending}.', f' {hero} went home and felt {ending}.',
                          f' That night {hero} was {ending}.']))
        questions.append((f'How did {hero} feel at the end?', ending))
    return Story(''.join(beats), hero, animal, friend, friend_animal, thing, color, home, questions)


def story_request(random, story):
    """A user's message that asks for this story, or for any story."""
    subject = random.choice([
        with_article(story.animal), with_article(story.animal), f'the {story.animal}', story.hero,
        with_article(story.thing), with_article(f'{story.color} {story.thing}'), f'{story.hero} the {story.animal}',
        f'{with_article(story.animal)} named {story.hero}', f'{with_article(story.animal)} who lived near {story.place}',
        f'{with_article(story.animal)} and {with_article(story.friend_animal)}', f'{story.hero} and {story.friend}', '',
    ])
    verb = random.choice(['Tell me a story', 'Tell me a short story', 'Tell a story', 'Write a story', 'Write a short story',
                          'Can you tell me a story', 'Please tell me a story'])
    mark = random.choice(['?', '?', '']) if verb.startswith('Can') else random.choice(['.', '.', ''])
    return f'{verb} about {subject}{mark}' if subject else f'{verb}{mark}'
