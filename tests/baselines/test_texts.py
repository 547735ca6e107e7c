from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

from baselines import texts
from baselines.texts import Texts
from harness.config import available
from harness.errors import RequestError
from harness.samples import EXPRESSIONS
from tasks.synthetic.world import ACTIVITIES

ROOT = Path(__file__).parents[2]
AUS = [f"au{number}" for number in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26)]
ODD = [
    "",
    "   ",
    "😀😀",
    "<b>smile</b> & <script>alert(1)</script>",
    "{0.__class__} {} ${oc.env:HOME}",
    "\x00\n\t",
    "ΣΟΦΙΑ 微笑 café",
    "\udcff",  # of a file name that is no UTF-8
]


def config(group: str, name: str) -> dict[str, Any]:
    node: dict[str, Any] = yaml.safe_load((ROOT / "configs" / group / f"{name}.yaml").read_text())
    return node


@pytest.fixture(scope="module")
def facs() -> Texts:
    return Texts(**config("texts", "facs"))


# ---- Texts


@pytest.mark.parametrize("label", [*EXPRESSIONS, *AUS])
def test_every_expression_and_action_unit_has_a_name_and_descriptions_in_every_template(facs: Texts, label: str) -> None:
    node = config("texts", "facs")
    own = node["descriptions"][label]
    assert len(set(own)) == len(own) >= (2 if label in AUS else 3)
    assert facs.name(label) == [f"a photo of a person with {node['names'][label]}"]
    told = facs.describe(label)
    assert len(set(told)) == len(own) * len(node["description_templates"])
    assert told[:3] == [template.replace("{}", own[0]) for template in node["description_templates"]]
    assert not any(brace in prompt for prompt in told for brace in "{}")
    assert label not in AUS or f"action unit {label[2:]})" in facs.name(label)[0]


def test_no_description_stands_for_two_labels(facs: Texts) -> None:
    told = [prompt for label in [*EXPRESSIONS, *AUS] for prompt in facs.describe(label)]
    assert len(set(told)) == len(told)


def test_every_action_unit_that_a_task_asks_for_has_texts(facs: Texts) -> None:
    targets = {target for task in available("task") for target in config("task", task)["task"].get("targets", ())}
    asked = {target.removesuffix("_intensity") for target in targets if target.startswith("au")}
    assert len(asked) > 12
    for target in asked:
        assert facs.describe(target)


def test_an_activity_is_its_own_text_unless_a_longer_one_is_given() -> None:
    told = Texts(activities={"T6": "holding a hand in ice water", "a joke": "hearing a joke and laughing"})
    assert told.activity("T6") == "holding a hand in ice water"
    assert told.activity("a joke") == "hearing a joke and laughing"
    assert [told.activity(activity) for activity in ["T7", *ACTIVITIES]] == ["T7", *ACTIVITIES]
    for nothing in (None, "", "  \n"):
        with pytest.raises(RequestError, match="an activity without a text"):
            told.activity(nothing)


def test_labels_of_a_users_own_are_welcome_and_their_texts_are_never_evaluated() -> None:
    told = Texts(
        names={"boredom": "{0.__class__} <b>😴</b>"},
        descriptions={"boredom": "a {} yawn", 3: ["x"]},
        description_templates=["a {}", "b {}"],
    )
    assert told.name("boredom") == ["{0.__class__} <b>😴</b>"]
    assert told.describe("boredom") == ["a a {} yawn", "b a {} yawn"]
    assert told.describe("3") == ["a x", "b x"]


def test_a_label_without_texts_is_refused_when_it_is_asked_for() -> None:
    told = Texts(names={"au12": "lip corner puller"})
    with pytest.raises(RequestError, match=r"au12 has no description \(texts.descriptions.au12\)"):
        told.describe("au12")
    with pytest.raises(RequestError, match=r"au13 has no name \(texts.names.au13\)"):
        told.name("au13")


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ({"description": {}}, r"no 'description' \(texts.description\); did you mean 'descriptions'"),
        ({"name_templates": ["a face"]}, r"'a face' is no template \(texts.name_templates\); write {} once"),
        ({"name_templates": ["{} and {}"]}, "is no template"),
        ({"description_templates": "a {0} {}"}, "is no template"),
        ({"description_templates": ["{!r} {}"]}, "is no template"),
        ({"description_templates": []}, "is no list of texts"),
        ({"names": {"au1": None}}, r"None is no text \(texts.names.au1\)"),
        ({"names": {"au1": ["a", "b"]}}, r"is no text \(texts.names.au1\)"),
        ({"descriptions": {"au1": [" "]}}, r"is no text \(texts.descriptions.au1\)"),
        ({"descriptions": {"au1": []}}, r"is no list of texts \(texts.descriptions.au1\)"),
        ({"descriptions": ["a"]}, r"has no keys \(texts.descriptions\)"),
        ({"activities": {"T1": ""}}, r"is no text \(texts.activities.T1\)"),
    ],
)
def test_texts_that_cannot_be_used_are_refused_in_one_line(node: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line) as error:
        Texts(**node)
    assert "\n" not in str(error.value)


# ---- the small tower


def small(dim: int = 16, **options: Any) -> texts.TextTower:
    return texts.build({**config("text_encoder", "small"), **options}, dim)


def test_a_texts_words_have_the_same_places_in_another_process_and_in_any_script() -> None:
    told = [*ODD, "A Person, smiling!", "a person smiling"]
    program = (
        "import json, sys\nfrom baselines import texts\nprint(texts.build({'name': 'small'}, 4).prepare(json.loads(sys.argv[1])).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    run = [sys.executable, "-c", program, json.dumps(told)]
    printed = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == small().prepare(told).tolist()
    upper, lower = small().prepare(told[-2:])
    assert torch.equal(upper, lower)
    assert torch.equal(*small().prepare(["caf\u00e9", "cafe\u0301"]))  # one accent, written in two ways


def test_places_are_of_the_words_then_zeros() -> None:
    prepared = small(buckets=50, longest=4).prepare(["one two", "", "one_two:one two three four five"])
    assert prepared.dtype == torch.int64
    assert prepared.shape == (3, 4)
    assert prepared[0].tolist()[2:] == [0, 0]
    assert prepared[1].tolist() == [0] * 4
    assert prepared[2].tolist() == prepared[0].tolist()[:2] * 2
    assert set(small(buckets=3).prepare([" ".join(map(str, range(200)))]).flatten().tolist()) == {1, 2, 3}
    assert small().prepare([]).shape[0] == 0


def test_the_order_of_words_and_padding_change_nothing() -> None:
    tower = small()
    one, other, longer = tower(tower.prepare(["a smiling face", "face, smiling a", "a smiling face " * 20]))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one, longer)
    alone = tower(tower.prepare(["a smiling face"]))[0]
    torch.testing.assert_close(alone, one)


def test_texts_that_share_words_are_alike_before_any_training() -> None:
    told = ["the corners of the mouth pulled up", "the corners of the mouth pulled down", "eyebrows lowered with upright furrows between"]
    likeness = []
    for seed in range(10):
        torch.manual_seed(seed)
        tower = small(dim=64)
        vectors = F.normalize(tower(tower.prepare(told)).detach(), dim=1)
        likeness.append((vectors @ vectors.T)[0])
    shared, other = torch.stack(likeness)[:, 1:].T
    assert float(shared.min()) > 0.6
    assert float(other.abs().max()) < 0.55


def test_a_text_without_words_has_a_vector_of_its_own_that_learns() -> None:
    tower = small()
    told = tower(tower.prepare(["", "😀", "a face"]))
    assert torch.equal(told[0], told[1])
    assert not torch.allclose(told[0], told[2])
    told.square().sum().backward()
    grads = {name: parameter.grad for name, parameter in tower.named_parameters()}
    assert all(grad is not None and bool(grad.isfinite().all()) and bool(grad.any()) for grad in grads.values())
    words = grads["words.weight"]
    assert words is not None
    assert set(torch.nonzero(words.any(1)).flatten().tolist()) == set(tower.prepare(["a face"]).flatten().tolist())


def test_the_small_tower_takes_any_text() -> None:
    tower = small()
    told = tower(tower.prepare([*ODD, "word " * 100_000]))
    assert told.shape == (len(ODD) + 1, 16)
    assert bool(told.isfinite().all())


# ---- a text model of transformers

TEXTS = ["a face", "the mouth pulled up", "a", "", "😀", "<b>smile</b>", "the mouth pulled up and the eyes narrowed " * 30]
CLIP = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = {**CLIP, "vocab_size": 9}
VISION = {**CLIP, "image_size": 32, "patch_size": 16}
KINDS = ("clip", "clip_projected", "clip_text", "bert", "chinese_clip", "t5")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "face", "mouth", "##s"]


def make(kind: str, folder: Path, seed: int = 3) -> Path:
    """A tiny text model of a kind, with random weights and a tokenizer."""
    import transformers as t

    torch.manual_seed(seed)
    text = {**CLIP, "vocab_size": 517, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    model: Any = {
        "clip": lambda: t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)),
        "clip_projected": lambda: t.CLIPTextModelWithProjection(t.CLIPTextConfig(**text, projection_dim=12)),
        "clip_text": lambda: t.CLIPTextModel(t.CLIPTextConfig(**text)),
        "bert": lambda: t.BertModel(t.BertConfig(**BERT, max_position_embeddings=10)),
        "chinese_clip": lambda: t.ChineseCLIPModel(t.ChineseCLIPConfig(text_config=BERT, vision_config=VISION, projection_dim=12)),
        "t5": lambda: t.T5Model(t.T5Config(vocab_size=9, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)),
    }[kind]()
    model.save_pretrained(folder)
    if kind.startswith("clip"):
        signs = sorted(ByteLevel.alphabet())  # one for each byte, so that any text can be written
        vocabulary = ["<|endoftext|>", "<|startoftext|>", *signs, *(f"{sign}</w>" for sign in signs), "fa", "fac", "face</w>"]
        (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(vocabulary)}))
        (folder / "merges.txt").write_text("#version: 0.2\nf a\nfa c\nfac e</w>\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12}))
    elif kind == "t5":  # whose tokenizer marks neither beginning nor end, so that an empty text has no token
        from tokenizers import Tokenizer, models, pre_tokenizers

        tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    else:
        (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = make(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "harness" / "texts"


def frozen(model: str | Path, dim: int = 5) -> texts.TextTower:
    return texts.build({**config("text_encoder", "clip"), "model": str(model)}, dim)


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(texts, "_load", refuse)


def by_hand(kind: str, folder: Path, text: str) -> Tensor:
    """One text through the library as its documentation says, alone and so without padding."""
    import transformers as t

    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    longest = {"clip": 12, "bert": 10, "chin": 256, "t5": 256}[kind[:4]]
    inputs = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt", return_token_type_ids=False)
    if not inputs["input_ids"].numel():
        inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.int64), "attention_mask": torch.ones(1, 1, dtype=torch.int64)}
    with torch.no_grad():
        if kind in ("clip", "chinese_clip"):
            both: Tensor = t.AutoModel.from_pretrained(folder).eval().get_text_features(**inputs).pooler_output
            return both[0]
        if kind == "clip_projected":
            return t.CLIPTextModelWithProjection.from_pretrained(folder).eval()(**inputs).text_embeds[0]
        if kind == "clip_text":
            return t.CLIPTextModel.from_pretrained(folder).eval()(**inputs).pooler_output[0]
        if kind == "t5":
            return t.T5EncoderModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].mean(0)
        return t.AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].mean(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_texts_embedding_is_the_models_own(kind: str, model: Callable[[str], Path]) -> None:
    folder = model(kind)
    prepared = frozen(folder).prepare(TEXTS)
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, torch.stack([by_hand(kind, folder, text) for text in TEXTS]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(prepared[0], prepared[1])


def test_any_text_can_be_embedded_and_long_ones_are_cut(model: Callable[[str], Path]) -> None:
    for kind in ("clip_projected", "bert"):
        prepared = frozen(model(kind)).prepare([*ODD, "face " * 20, "face " * 20_000])
        assert bool(prepared.isfinite().all())
        assert torch.allclose(prepared[-1], prepared[-2], atol=1e-6)


def test_many_texts_give_what_each_gives_alone(model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{'a ' * (place % 5)}face {place}" for place in range(2 * 64 + 5)]
    together = frozen(model("clip_projected")).prepare([*many, many[0]])
    assert torch.equal(together[0], together[-1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(model("clip_projected").parent / "another"))
    monkeypatch.setattr(texts, "_BATCH", 7)
    torch.testing.assert_close(frozen(model("clip_projected")).prepare(many[::-1]).flip(0), together[:-1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["clip_projected", "bert"])
def test_the_second_time_no_model_is_loaded(kind: str, model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = frozen(model(kind)).prepare(TEXTS)
    no_model(monkeypatch)
    again = frozen(model(kind))
    assert torch.equal(again.prepare(TEXTS[::-1]).flip(0), first)
    assert again.prepare([]).shape == (0, first.shape[1])
    with pytest.raises(AssertionError, match="the model was loaded"):
        again.prepare(["another text"])


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertModel

    folder = make("bert", tmp_path / "model")
    before = frozen(folder).prepare(["a face"])
    changed = BertModel.from_pretrained(folder)
    with torch.no_grad():
        changed.embeddings.word_embeddings.weight.add_(torch.randn(9, 16))
    changed.save_pretrained(folder)
    assert not torch.allclose(frozen(folder).prepare(["a face"]), before)


def test_a_name_stands_for_the_revision_that_is_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub = tmp_path / "models--nobody--tiny"
    first, second = "1" * 40, "2" * 40
    make("bert", hub / "snapshots" / first)
    make("bert", hub / "snapshots" / second, seed=4)
    (hub / "refs").mkdir()
    found = []
    for revision in (first, second):
        (hub / "refs" / "main").write_text(revision)
        found.append(frozen("nobody/tiny").prepare(["a face"]))
        torch.testing.assert_close(found[-1], frozen(hub / "snapshots" / revision).prepare(["a face"]))
    assert not torch.allclose(*found)
    (hub / "refs" / "main").write_text(first)
    no_model(monkeypatch)
    assert torch.equal(frozen("nobody/tiny").prepare(["a face"]), found[0])


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "nan", "width", "name"])
def test_an_embedding_that_was_damaged_on_disk_is_computed_again(damage: str, model: Callable[[str], Path], cache: Path) -> None:
    from safetensors.torch import save_file

    tower = frozen(model("bert"))
    sound = tower.prepare(TEXTS)
    files = list(cache.glob("*/*.safetensors"))
    assert len(files) == len(TEXTS)  # the text that tells the width is one of them
    wrong = {"nan": {"embedding": torch.full((16,), torch.nan)}, "width": {"embedding": torch.zeros(3)}, "name": {"x": torch.zeros(16)}}
    for file in files:
        if damage in wrong:
            save_file(wrong[damage], file)
        else:
            file.write_bytes({"cut": file.read_bytes()[:-5], "empty": b"", "garbage": b"\xff" * 300}[damage])
    torch.testing.assert_close(tower.prepare(TEXTS), sound, atol=1e-6, rtol=1e-5)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".safetensors"]


def test_without_a_place_to_keep_them_embeddings_are_computed_each_time(
    model: Callable[[str], Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder would be")
    assert frozen(model("bert")).prepare(TEXTS).shape == (len(TEXTS), 16)


def test_only_the_linear_layer_learns_and_is_kept(model: Callable[[str], Path]) -> None:
    tower = frozen(model("clip_projected"), dim=5)
    assert {name: tuple(value.shape) for name, value in tower.state_dict().items()} == {"linear.weight": (5, 12), "linear.bias": (5,)}
    told = tower(tower.prepare(TEXTS))
    assert told.shape == (len(TEXTS), 5)
    told.sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is not None] == ["linear.weight", "linear.bias"]


def test_a_fit_does_not_depend_on_what_was_cached(tmp_path: Path) -> None:
    from transformers import BertModel

    folder = make("bert", tmp_path / "model")
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)  # loading it draws the pooling layer at random
    torch.manual_seed(0)
    first = frozen(folder)
    torch.manual_seed(0)
    second = frozen(folder)
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_loading_says_nothing(model: Callable[[str], Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = model("clip")  # of which half the weights are left out, which the library would tell one by one
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    capfd.readouterr()
    try:
        frozen(folder)
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    printed = capfd.readouterr()
    assert not said
    assert printed.out + printed.err == ""


def test_a_model_that_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path, model: Callable[[str], Path]) -> None:
    def refused(name: str, line: str) -> None:
        with pytest.raises(RequestError, match=line) as error:
            texts.build({"name": "transformers", "model": name}, 4)
        assert "text_encoder.model" in str(error.value)
        assert "\n" not in str(error.value)

    refused("nobody/nothing-here", "cannot load nobody/nothing-here: .*unset HF_HUB_OFFLINE")
    refused(str(tmp_path / "none"), "cannot load .*none")
    (tmp_path / "empty").mkdir()
    refused(str(tmp_path / "empty"), "cannot load .*empty")
    wordless = make("bert", tmp_path / "wordless")
    (wordless / "vocab.txt").unlink()
    refused(str(wordless), "its tokenizer has no words")
    unlike = make("clip_text", tmp_path / "unlike")
    settings = json.loads((unlike / "config.json").read_text())
    (unlike / "config.json").write_text(json.dumps({**settings, "architectures": ["CLIPTextModelWithProjection"]}))
    refused(str(unlike), "its weights lack text_projection.weight")
    cut = make("bert", tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:100])
    refused(str(cut), "cannot load .*cut")


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ({"name": "smal"}, "no text encoder is called 'smal' .*did you mean 'small'"),
        ({"name": "small", "bucket": 3}, "unexpected keyword argument 'bucket'"),
        ({"name": "small", "buckets": 0}, r"buckets of 0 \(text_encoder.buckets\)"),
        ({"name": "small", "longest": "all"}, "longest of 'all'"),
        ({"name": "transformers"}, "missing 1 required keyword-only argument: 'model'"),
    ],
)
def test_a_tower_that_cannot_be_built_is_refused_in_one_line(node: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line) as error:
        texts.build(node, 4)
    assert "\n" not in str(error.value)


def test_the_text_encoder_of_a_lab_is_clips_and_asks_no_network() -> None:
    assert config("text_encoder", "clip") == {
        "name": "transformers",
        "model": "openai/clip-vit-base-patch16",
        "download": False,
    }
