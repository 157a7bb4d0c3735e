def run(prompt, **options):
    return [prompt, options]
