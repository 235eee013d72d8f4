import pytest
from made_people import People


@pytest.fixture
def sound():
    """Ten people of five images, without a fault."""
    people = People()
    for person in range(10):
        for _ in range(5):
            people.image(f"p{person}")
    return people
