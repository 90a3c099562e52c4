"""What a run says: a table for the terminal, and docs/wire.md."""

import collections
import datetime


def groups(cases):
    found = collections.OrderedDict()
    for case in cases:
        found.setdefault(case.group, []).append(case)
    return found


def counted(cases, product, outcomes):
    done = [outcomes[product.key, case.number][0] for case in cases if (product.key, case.number) in outcomes]
    return len(done) - sum(1 for wrong in done if wrong), len(done)


def cell(cases, product, outcomes):
    passed, done = counted(cases, product, outcomes)
    return "–" if not done else f"{passed}/{done}"


def table(cases, running, outcomes, seconds):
    lines = [f"{'':28}" + "".join(f"{product.title:>14}" for product in running)]
    for group, members in groups(cases).items():
        lines.append(f"{group:28}" + "".join(f"{cell(members, product, outcomes):>14}" for product in running))
    lines.append(f"{'all':28}" + "".join(f"{cell(cases, product, outcomes):>14}" for product in running))
    lines.append(f"{len(cases)} cases in {seconds:.0f} s")
    return "\n".join(lines)


INTRODUCTION = """# The same cases through cde-gateway, nginx and HAProxy

`make wire` plays {count} cases against the three beside each other and writes this page. Each product runs with an equivalent configuration (a plain listener, a
TLS listener with HTTP/2, the same deadlines; `tests/wire/wire/products.py`) before a raw upstream that writes down exactly the bytes that arrive and reads
them more strictly than any server: whatever two servers could frame differently counts against the product that sent it on. The case says which RFC or attack it
stands for (`tests/wire/run.py --list`).

A case is passed by security, not by taste: what an RFC obliges a server to refuse is refused (4xx, 501, 505 or a close, and the connection ends where framing is in
doubt); what may be taken reaches the upstream with exactly one reading, and no second request; what breaks ends in 502, 504 or a visible cut, in time, and never in
another's bytes. Cases of duties that the others do not have (tokens, our cookie, 421) are played against cde-gateway alone: the number of cases stands behind the stroke.

nginx and HAProxy are as their documentation shows a proxy for WebSockets. Identity headers of clients (*claims*) are the operator's to remove there, so those
lines tell how much is left to him, not that the products are wrong. Where they pass a bare LF or an odd Host on, they keep to a tolerance of older clients.

"""


def write(path, cases, running, outcomes):
    versions = [f"{product.title} {product.version()}" for product in running]
    text = INTRODUCTION.format(count=len(cases))
    text += f"Run on {datetime.date.today().isoformat()}: " + ", ".join(versions) + " (Debian 12).\n\n"
    text += "| group | " + " | ".join(product.title for product in running) + " |\n|---|" + "---:|" * len(running) + "\n"
    for group, members in groups(cases).items():
        text += f"| {group} | " + " | ".join(cell(members, product, outcomes) for product in running) + " |\n"
    text += "| **all** | " + " | ".join(f"**{cell(cases, product, outcomes)}**" for product in running) + " |\n"
    ours = running[0]
    shared = [case for case in cases if all((product.key, case.number) in outcomes for product in running)]
    text += "| **those that all three play** | " + " | ".join(f"**{cell(shared, product, outcomes)}**" for product in running) + " |\n"
    failed = [case for case in cases if outcomes.get((ours.key, case.number), (None,))[0]]
    text += "\n## What cde-gateway fails\n" + ("" if failed else "Nothing.\n")
    for case in failed:
        text += f"- {case.group}, {case.name} ({case.reference}): {outcomes[ours.key, case.number][0]}\n"
    path.write_text(text)
