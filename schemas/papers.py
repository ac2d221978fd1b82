"""The papers that methods come from: titles, authors and numbers, as BibTeX and as links."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A paper.

    Attributes:
        cited: How ``Method.paper`` cites it.
        authors: As BibTeX has them.
        title: Its title.
        venue: Where it appeared.
        arxiv: Its number at arXiv; None if it isn't there.
        doi: Its DOI, where it isn't at arXiv.
        url: Its address, where it has neither.
        mark: What stands in parentheses after a citation that two papers have; empty for the one
            that is meant without.
    """

    cited: str
    authors: str
    title: str
    venue: str
    arxiv: str | None = None
    doi: str | None = None
    url: str | None = None
    mark: str = ""

    @property
    def year(self) -> str:
        """The year that it is cited by."""
        return self.cited[-4:]

    @property
    def link(self) -> str:
        """Where it can be read; the hub knows papers by the first of these."""
        if self.arxiv is not None:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return str(self.url if self.doi is None else f"https://doi.org/{self.doi}")

    @property
    def key(self) -> str:
        """Its key in BibTeX: the first author, the year and the first long word of the title."""
        word = next(w for w in re.findall(r"[A-Za-z]+", self.title) if len(w) > 3)
        surname = re.sub(r"\W", "", self.authors.split(",")[0].replace("{", "").replace("}", ""))
        return f"{surname}{self.year}{word}".lower()

    @property
    def bibtex(self) -> str:
        """The paper as an entry of BibTeX."""
        fields = {
            "title": f"{{{self.title}}}",
            "author": self.authors,
            "year": self.year,
            "howpublished": self.venue,
            **({"eprint": self.arxiv, "archiveprefix": "arXiv"} if self.arxiv else {}),
            **({"doi": self.doi} if self.doi else {}),
            "url": self.link,
        }
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}}}"


PAPERS = (
    Paper(
        "Abnar & Zuidema 2020",
        "Abnar, Samira and Zuidema, Willem",
        "Quantifying Attention Flow in Transformers",
        "ACL 2020",
        "2005.00928",
    ),
    Paper(
        "Achtibat et al. 2024",
        "Achtibat, Reduan and Hatefi, Sayed Mohammad Vakilzadeh and Dreyer, Maximilian and Jain, "
        "Aakriti and Wiegand, Thomas and Lapuschkin, Sebastian and Samek, Wojciech",
        "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers",
        "ICML 2024",
        "2402.05602",
    ),
    Paper(
        "Ali et al. 2022",
        "Ali, Ameen and Schnake, Thomas and Eberle, Oliver and Montavon, Gr{\\'e}goire and "
        'M{\\"u}ller, Klaus-Robert and Wolf, Lior',
        "XAI for Transformers: Better Explanations through Conservative Propagation",
        "ICML 2022",
        "2202.07304",
    ),
    Paper(
        "Bach et al. 2015",
        "Bach, Sebastian and Binder, Alexander and Montavon, Gr{\\'e}goire and Klauschen, "
        'Frederick and M{\\"u}ller, Klaus-Robert and Samek, Wojciech',
        "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
        "Propagation",
        "PLOS ONE 10(7), 2015",
        doi="10.1371/journal.pone.0130140",
    ),
    Paper(
        "Brunner et al. 2020",
        "Brunner, Gino and Liu, Yang and Pascual, Dami{\\'a}n and Richter, Oliver and Ciaramita, "
        "Massimiliano and Wattenhofer, Roger",
        "On Identifiability in Transformers",
        "ICLR 2020",
        "1908.04211",
    ),
    Paper(
        "Chefer et al. 2021",
        "Chefer, Hila and Gur, Shir and Wolf, Lior",
        "Transformer Interpretability Beyond Attention Visualization",
        "CVPR 2021",
        "2012.09838",
    ),
    Paper(
        "Chefer et al. 2021",
        "Chefer, Hila and Gur, Shir and Wolf, Lior",
        "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder "
        "Transformers",
        "ICCV 2021",
        "2103.15679",
        mark="ICCV",
    ),
    Paper(
        "Chen et al. 2023",
        "Chen, Jiamin and Li, Xuhong and Yu, Lei and Dou, Dejing and Xiong, Haoyi",
        "Beyond Intuition: Rethinking Token Attributions inside Transformers",
        "Transactions on Machine Learning Research, 2023",
        url="https://openreview.net/forum?id=rm0zIzlhcX",
    ),
    Paper(
        "Cohen-Wang et al. 2024",
        "Cohen-Wang, Benjamin and Shah, Harshay and Georgiev, Kristian and Madry, Aleksander",
        "ContextCite: Attributing Model Generation to Context",
        "NeurIPS 2024",
        "2409.00729",
    ),
    Paper(
        "Denil et al. 2014",
        "Denil, Misha and Demiraj, Alban and de Freitas, Nando",
        "Extraction of Salient Sentences from Labelled Documents",
        "arXiv, 2014",
        "1412.6815",
    ),
    Paper(
        "Ferrando et al. 2022",
        "Ferrando, Javier and G{\\'a}llego, Gerard I. and Costa-juss{\\`a}, Marta R.",
        "Measuring the Mixing of Contextual Information in the Transformer",
        "EMNLP 2022",
        "2203.04212",
    ),
    Paper(
        "Ferrando et al. 2023",
        "Ferrando, Javier and G{\\'a}llego, Gerard I. and Tsiamas, Ioannis and Costa-juss{\\`a}, "
        "Marta R.",
        "Explaining How Transformers Use Context to Build Predictions",
        "ACL 2023",
        "2305.12535",
    ),
    Paper(
        "Ferrando & Voita 2024",
        "Ferrando, Javier and Voita, Elena",
        "Information Flow Routes: Automatically Interpreting Language Models at Scale",
        "EMNLP 2024",
        "2403.00824",
    ),
    Paper(
        "Hao et al. 2021",
        "Hao, Yaru and Dong, Li and Wei, Furu and Xu, Ke",
        "Self-Attention Attribution: Interpreting Information Interactions Inside Transformer",
        "AAAI 2021",
        "2004.11207",
    ),
    Paper(
        "Jiang et al. 2020",
        "Jiang, Zhiying and Tang, Raphael and Xin, Ji and Lin, Jimmy",
        "Inserting Information Bottlenecks for Attribution in Transformers",
        "Findings of EMNLP 2020",
        "2012.13838",
    ),
    Paper(
        "Kobayashi et al. 2020",
        "Kobayashi, Goro and Kuribayashi, Tatsuki and Yokoi, Sho and Inui, Kentaro",
        "Attention is Not Only a Weight: Analyzing Transformers with Vector Norms",
        "EMNLP 2020",
        "2004.10102",
    ),
    Paper(
        "Kobayashi et al. 2021",
        "Kobayashi, Goro and Kuribayashi, Tatsuki and Yokoi, Sho and Inui, Kentaro",
        "Incorporating Residual and Normalization Layers into Analysis of Masked Language Models",
        "EMNLP 2021",
        "2109.07152",
    ),
    Paper(
        "Li et al. 2016",
        "Li, Jiwei and Monroe, Will and Jurafsky, Dan",
        "Understanding Neural Networks through Representation Erasure",
        "arXiv, 2016",
        "1612.08220",
    ),
    Paper(
        "Lu et al. 2021",
        "Lu, Kaiji and Wang, Zifan and Mardziel, Piotr and Datta, Anupam",
        "Influence Patterns for Explaining Information Flow in BERT",
        "NeurIPS 2021",
        "2011.00740",
    ),
    Paper(
        "Lundberg & Lee 2017",
        "Lundberg, Scott M. and Lee, Su-In",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS 2017",
        "1705.07874",
    ),
    Paper(
        "Modarressi et al. 2022",
        "Modarressi, Ali and Fayyaz, Mohsen and Yaghoobzadeh, Yadollah and Pilehvar, Mohammad "
        "Taher",
        "GlobEnc: Quantifying Global Token Attribution by Incorporating the Whole Encoder Layer in "
        "Transformers",
        "NAACL 2022",
        "2205.03286",
    ),
    Paper(
        "Modarressi et al. 2023",
        "Modarressi, Ali and Fayyaz, Mohsen and Aghazadeh, Ehsan and Yaghoobzadeh, Yadollah and "
        "Pilehvar, Mohammad Taher",
        "DecompX: Explaining Transformers Decisions by Propagating Token Decomposition",
        "ACL 2023",
        "2306.02873",
    ),
    Paper(
        "Mohebbi et al. 2023",
        "Mohebbi, Hosein and Zuidema, Willem and Chrupa{\\l}a, Grzegorz and Alishahi, Afra",
        "Quantifying Context Mixing in Transformers",
        "EACL 2023",
        "2301.12971",
    ),
    Paper(
        "Park et al. 2023",
        "Park, Sung Min and Georgiev, Kristian and Ilyas, Andrew and Leclerc, Guillaume and Madry, "
        "Aleksander",
        "TRAK: Attributing Model Behavior at Scale",
        "ICML 2023",
        "2303.14186",
    ),
    Paper(
        "Ribeiro et al. 2016",
        "Ribeiro, Marco Tulio and Singh, Sameer and Guestrin, Carlos",
        '"Why Should I Trust You?": Explaining the Predictions of Any Classifier',
        "KDD 2016",
        "1602.04938",
    ),
    Paper(
        "Schulz et al. 2020",
        "Schulz, Karl and Sixt, Leon and Tombari, Federico and Landgraf, Tim",
        "Restricting the Flow: Information Bottlenecks for Attribution",
        "ICLR 2020",
        "2001.00396",
    ),
    Paper(
        "Selvaraju et al. 2017",
        "Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and Vedantam, "
        "Ramakrishna and Parikh, Devi and Batra, Dhruv",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        "ICCV 2017",
        "1610.02391",
    ),
    Paper(
        "Shrikumar et al. 2016",
        "Shrikumar, Avanti and Greenside, Peyton and Shcherbina, Anna and Kundaje, Anshul",
        "Not Just a Black Box: Learning Important Features Through Propagating Activation "
        "Differences",
        "arXiv, 2016",
        "1605.01713",
    ),
    Paper(
        "Simonyan et al. 2014",
        "Simonyan, Karen and Vedaldi, Andrea and Zisserman, Andrew",
        "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency "
        "Maps",
        "ICLR 2014 workshop",
        "1312.6034",
    ),
    Paper(
        "Smilkov et al. 2017",
        "Smilkov, Daniel and Thorat, Nikhil and Kim, Been and Vi{\\'e}gas, Fernanda and "
        "Wattenberg, Martin",
        "SmoothGrad: removing noise by adding noise",
        "arXiv, 2017",
        "1706.03825",
    ),
    Paper(
        "Sundararajan et al. 2017",
        "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
        "Axiomatic Attribution for Deep Networks",
        "ICML 2017",
        "1703.01365",
    ),
    Paper(
        "Vaswani et al. 2017",
        "Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion "
        "and Gomez, Aidan N. and Kaiser, {\\L}ukasz and Polosukhin, Illia",
        "Attention Is All You Need",
        "NeurIPS 2017",
        "1706.03762",
    ),
    Paper(
        "Voita et al. 2019",
        "Voita, Elena and Talbot, David and Moiseev, Fedor and Sennrich, Rico and Titov, Ivan",
        "Analyzing Multi-Head Self-Attention: Specialized Heads Do the Heavy Lifting, the Rest Can "
        "Be Pruned",
        "ACL 2019",
        "1905.09418",
    ),
    Paper(
        "Zeiler & Fergus 2014",
        "Zeiler, Matthew D. and Fergus, Rob",
        "Visualizing and Understanding Convolutional Networks",
        "ECCV 2014",
        "1311.2901",
    ),
)
_BY_CITATION: dict[str, list[Paper]] = {}
for _paper in PAPERS:
    _BY_CITATION.setdefault(_paper.cited, []).append(_paper)
_CITED = re.compile(rf"\b({'|'.join(map(re.escape, _BY_CITATION))})\b(?: \((\w+)\))?")


def papers_in(texts: Iterable[str]) -> list[Paper]:
    """The papers that some texts cite, each once, in the order in which they are cited."""
    found: dict[Paper, None] = {}
    for text in texts:
        for cited, mark in _CITED.findall(text):
            alike = _BY_CITATION[cited]
            found[next((p for p in alike if p.mark and p.mark == mark), alike[0])] = None
    return list(found)
