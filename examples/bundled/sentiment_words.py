"""Word lists of the sentiment corpus, the most frequent words of each list first.

Lists come in pairs indexed by polarity: ``LIST[0]`` is negative, ``LIST[1]`` positive.
"""

from __future__ import annotations

from dataclasses import dataclass

from examples.bundled.wordlists import listed

Pair = tuple[tuple[str, ...], tuple[str, ...]]

ADJECTIVES: Pair = (
    listed(
        """
        dull awful clumsy disappointing terrible boring dreadful mediocre tedious horrible
        unpleasant unconvincing shoddy lousy forgettable tiresome irritating uninspired dismal
        feeble sloppy bland annoying unremarkable lifeless pathetic appalling laughable
        unbearable amateurish abysmal joyless insipid dreary unsatisfying atrocious pitiful
        infuriating disagreeable wretched graceless lamentable deplorable uninviting repulsive
        lacklustre charmless exasperating unimpressive cumbersome excruciating woeful ghastly
        underwhelming monotonous unforgivable incompetent soulless regrettable slapdash
        execrable nauseating stultifying unpalatable
        """
    ),
    listed(
        """
        superb wonderful excellent charming brilliant delightful impressive lovely splendid
        convincing memorable pleasant outstanding marvellous fantastic inspired remarkable
        magnificent polished satisfying admirable elegant stunning graceful terrific
        unforgettable captivating flawless enchanting glorious exquisite gripping refreshing
        sublime competent praiseworthy commendable exhilarating dazzling inviting spellbinding
        beguiling first-rate masterful irresistible heavenly sumptuous agreeable luminous
        ravishing enthralling unsurpassed meticulous faultless invigorating peerless
        resplendent scintillating incomparable tasteful mesmerising laudable uplifting
        virtuosic
        """
    ),
)

# Base and past form of what somebody feels about a thing.
VERBS: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = (
    (
        ("hate", "hated"),
        ("dislike", "disliked"),
        ("regret", "regretted"),
        ("detest", "detested"),
        ("resent", "resented"),
        ("loathe", "loathed"),
        ("despise", "despised"),
        ("deplore", "deplored"),
        ("abhor", "abhorred"),
        ("lament", "lamented"),
        ("bemoan", "bemoaned"),
        ("begrudge", "begrudged"),
    ),
    (
        ("love", "loved"),
        ("enjoy", "enjoyed"),
        ("like", "liked"),
        ("admire", "admired"),
        ("adore", "adored"),
        ("appreciate", "appreciated"),
        ("treasure", "treasured"),
        ("relish", "relished"),
        ("cherish", "cherished"),
        ("savour", "savoured"),
        ("applaud", "applauded"),
        ("esteem", "esteemed"),
    ),
)

# Base and past form of what a thing does to somebody.
EFFECTS: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = (
    (
        ("bore", "bored"),
        ("disappoint", "disappointed"),
        ("annoy", "annoyed"),
        ("irritate", "irritated"),
        ("bother", "bothered"),
        ("frustrate", "frustrated"),
        ("disgust", "disgusted"),
        ("depress", "depressed"),
        ("exasperate", "exasperated"),
        ("infuriate", "infuriated"),
        ("dismay", "dismayed"),
        ("repel", "repelled"),
        ("sicken", "sickened"),
        ("vex", "vexed"),
    ),
    (
        ("please", "pleased"),
        ("delight", "delighted"),
        ("impress", "impressed"),
        ("charm", "charmed"),
        ("amuse", "amused"),
        ("thrill", "thrilled"),
        ("satisfy", "satisfied"),
        ("fascinate", "fascinated"),
        ("dazzle", "dazzled"),
        ("enchant", "enchanted"),
        ("captivate", "captivated"),
        ("enthral", "enthralled"),
        ("gratify", "gratified"),
        ("bewitch", "bewitched"),
    ),
)

NOUNS: Pair = (
    listed(
        """
        disaster failure mess letdown bore nuisance disgrace fiasco catastrophe embarrassment
        muddle travesty calamity debacle shambles monstrosity
        """
    ),
    listed(
        """
        triumph treat delight joy masterpiece success pleasure gem marvel wonder revelation
        blessing sensation treasure knockout tour-de-force
        """
    ),
)

# Adverbs that carry the opinion themselves, put before a neutral adjective: "needlessly plain".
VERDICT_ADVERBS: Pair = (
    (
        "too",
        "annoyingly",
        "needlessly",
        "far too",
        "painfully",
        "overly",
        "unnecessarily",
        "irritatingly",
        "excessively",
        "depressingly",
        "insufferably",
    ),
    (
        "pleasantly",
        "refreshingly",
        "agreeably",
        "suitably",
        "wonderfully",
        "reassuringly",
        "delightfully",
        "charmingly",
        "commendably",
        "enjoyably",
        "gratifyingly",
    ),
)
NEUTRAL_ADJECTIVES = listed(
    "simple plain modest traditional unusual modern familiar elaborate formal old-fashioned "
    "restrained unhurried unassuming idiosyncratic"
)

# Several of these look like opinions, and are none: "terribly charming" is praise.
INTENSIFIERS = listed(
    "very really truly so extremely terribly utterly awfully thoroughly incredibly "
    "exceptionally astonishingly frightfully overwhelmingly"
)
DIMINISHERS = (
    "rather",
    "slightly",
    "somewhat",
    "fairly",
    "a little",
    "mildly",
    "a bit",
    "moderately",
    "faintly",
)
VERB_DEGREES = ("really", "thoroughly", "rather", "truly", "positively", "greatly", "mildly")
NOUN_DEGREES = ("complete", "real", "absolute", "total", "minor", "genuine", "modest", "veritable")

NEGATORS = (
    "not",
    "not at all",
    "never",
    "hardly",
    "far from",
    "not very",
    "by no means",
    "anything but",
    "in no way",
    "not particularly",
    "scarcely",
    "not remotely",
)


@dataclass(frozen=True)
class Domain:
    """What reviews of one kind of thing talk about.

    Attributes:
        things: Singular names of what is reviewed.
        singular: Singular aspects of it.
        plural: Plural aspects of it.
        facts: Neutral sentences without final stop; ``{...}`` are slots, see ``FACT_SLOTS``.
    """

    things: tuple[str, ...]
    singular: tuple[str, ...]
    plural: tuple[str, ...]
    facts: tuple[str, ...]


DOMAINS = (
    Domain(
        ("film", "movie", "picture", "documentary"),
        listed(
            "plot acting script ending dialogue soundtrack pacing camerawork opening "
            "cinematography screenplay finale storytelling choreography"
        ),
        ("characters", "costumes", "songs", "stunts", "performances", "flashbacks"),
        (
            "the story is set in {place}",
            "it runs for {number} hours",
            "we saw it on a {day} in {month}",
            "the director is from {place}",
            "it was not shown in {place} until {month}",
            "the hero is a retired detective from {place}",
            "there were {number} people in the cinema",
            "it is based on a novel of {number} hundred pages",
        ),
    ),
    Domain(
        ("restaurant", "cafe", "bistro", "canteen"),
        listed(
            "soup service menu dessert wine bread coffee fish atmosphere waiter curry seasoning "
            "risotto bouillabaisse"
        ),
        ("starters", "portions", "noodles", "pancakes", "vegetables", "dumplings"),
        (
            "we sat at table {number}",
            "the place opened in {month}",
            "we were {number} people and came on a {day}",
            "the chef trained in {place}",
            "we did not book a table",
            "the kitchen closes at {number} on a {day}",
            "it stands opposite the {spot}",
            "they never open before {number}",
        ),
    ),
    Domain(
        ("hotel", "hostel", "guesthouse", "lodge"),
        listed(
            "room breakfast bed view pool lobby bathroom garden receptionist shower location "
            "terrace housekeeping balcony"
        ),
        ("towels", "corridors", "pillows", "mattresses", "furnishings", "curtains"),
        (
            "we stayed for {number} nights in {month}",
            "it stands opposite the {spot}",
            "our room was on floor {number}",
            "it is {number} minutes from the {spot}",
            "I had never been to {place} before",
            "we came by train from {place}",
            "we did not use the car park",
            "there are {number} rooms on each floor",
        ),
    ),
    Domain(
        ("book", "novel", "biography", "anthology"),
        listed(
            "prose plot opening ending dialogue narrator translation style chapter humour "
            "structure epilogue characterisation typography"
        ),
        ("chapters", "characters", "illustrations", "descriptions", "poems", "footnotes"),
        (
            "it has {number} chapters",
            "I read it on the train to {place}",
            "I bought it in {month}",
            "the author lives in {place}",
            "it was published on a {day} in {month}",
            "my copy has no index",
            "the tale begins in {place}",
            "I had not read the author before",
        ),
    ),
    Domain(
        ("phone", "laptop", "camera", "tablet"),
        listed(
            "screen battery keyboard design software sound casing lens display interface "
            "touchpad microphone packaging craftsmanship"
        ),
        ("speakers", "buttons", "instructions", "updates", "menus", "accessories"),
        (
            "I bought it in {month}",
            "it came from a shop in {place}",
            "it weighs {number} hundred grams",
            "I use it for {number} hours a day",
            "it did not come with a cable",
            "the parcel arrived on a {day}",
            "I had never owned one before",
            "mine has {number} ports",
        ),
    ),
    Domain(
        ("concert", "play", "musical", "opera"),
        listed(
            "singing orchestra lighting staging encore overture soprano rhythm chorus set "
            "band conductor libretto improvisation"
        ),
        ("dancers", "costumes", "musicians", "solos", "harmonies", "violins"),
        (
            "we had seats in row {number}",
            "it began at {number} on a {day}",
            "the hall is next to the {spot}",
            "the company is from {place}",
            "there was no interval",
            "it lasted for {number} hours",
            "we had not seen a programme",
            "the tour ends in {place} in {month}",
        ),
    ),
)

FACT_SLOTS: dict[str, tuple[str, ...]] = {
    "place": listed(
        "London Paris Berlin Rome Vienna Lisbon Dublin Oslo Prague Naples Helsinki Edinburgh "
        "Marrakesh Thessaloniki"
    ),
    "number": listed("two three four five six seven eight nine ten eleven twelve"),
    "day": listed("Friday Saturday Sunday Monday Tuesday Thursday Wednesday"),
    "month": listed("May June July August March April October November January September"),
    "spot": listed("station park river church museum harbour library lighthouse"),
}

# Other people, whose opinions do not count: name, pronoun as a subject and as an object.
OTHERS = (
    ("my brother", "he", "him"),
    ("my sister", "she", "her"),
    ("my neighbour", "he", "him"),
    ("a friend", "she", "her"),
    ("my colleague", "she", "her"),
    ("our guide", "he", "him"),
    ("my father", "he", "him"),
    ("one critic", "she", "her"),
    ("my aunt", "she", "her"),
    ("a stranger", "he", "him"),
    ("my landlady", "she", "her"),
    ("an acquaintance", "he", "him"),
)
