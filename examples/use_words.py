"""Which words speak for a class, over a whole corpus? A question in SQL to a finished run.

python examples/use_words.py out     # the run of use_compare.py
"""

import sys

import attribeam as ab

# Words in at least two texts, by their mean share of the strongest word of their text.
WORDS = """
    select lower(word) as word, round(avg(share), 2) as share, count(*) as texts
    from (
        select *, score / max(abs(score)) over (partition by instance_id) as share
        from words
        where method = $method
    )
    join instances using (instance_id)
    where prediction = $class
    group by all
    having texts >= 2
    order by share desc
    limit 10
"""


def main(run: str, method: str = "decompx") -> None:
    """Prints the strongest words of each class."""
    opened = ab.open_run(run)
    for number, name in enumerate(("negative", "positive")):
        print(name)
        print(opened.sql(WORDS, method=method, **{"class": number}))


if __name__ == "__main__":
    main(*sys.argv[1:])
